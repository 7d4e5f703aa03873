//! Where Glacier answers: scheme, host and port, and the region that signatures name.
//!
//! An [`Endpoint`] exists only if it is usable, so nothing behind it checks again. Standard names are
//! `glacier.{region}.amazonaws.com`; China has its own suffix, some regions have a second, FIPS-validated name, and an
//! override replaces the name but never the region.

use std::{fmt, net::IpAddr};

use reqwest::Url;

/// Regions with a `glacier-fips` name (Amazon Glacier endpoints and quotas). AWS's government regions are not here: their
/// ordinary names are FIPS-validated already.
const FIPS_REGIONS: [&str; 5] = ["us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1"];
/// AWS's government regions begin so.
const GOVCLOUD_PREFIX: &str = "us-gov-";
/// China's regions begin so.
const CHINA_PREFIX: &str = "cn-";
/// Regions of partitions whose domain is neither `amazonaws.com` nor China's. A guessed name would not resolve, or
/// resolve to a stranger.
const FOREIGN_PREFIXES: [&str; 3] = ["us-iso", "eu-iso", "eusc-"];
/// Longest DNS label: the region is one.
const REGION_MAX: usize = 63;

/// A usable address of Glacier's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    /// Host, and port unless it is the scheme's own: exactly what the `host` header says and the signature covers.
    authority: String,
    region: String,
}

/// The two schemes that an endpoint can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Why there is no usable endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The region is not spelt like one.
    #[error("region {0:?} is not 1 to {REGION_MAX} characters of [a-z0-9-] that begin and end with a letter or digit")]
    Region(String),
    /// The region's partition has endpoint names that the gateway does not know.
    #[error("no endpoint name is known for region {0:?}: give an endpoint URL")]
    UnknownPartition(String),
    /// The region has no FIPS endpoint.
    #[error("region {0:?} has no FIPS endpoint; {fips} and GovCloud have", fips = FIPS_REGIONS.join(", "))]
    NoFips(String),
    /// The override is AWS's name for another region. The URL is not repeated.
    #[error("region {region:?} contradicts the endpoint URL, whose host is that of {host:?}")]
    OtherRegion {
        /// The one that was given.
        region: String,
        /// The host's.
        host: String,
    },
    /// FIPS and an override contradict each other.
    #[error("FIPS and an endpoint URL exclude each other: the URL says which host to use")]
    FipsWithOverride,
    /// The override is not a plain `http` or `https` address. The URL is not repeated: it may hold a password.
    #[error("the endpoint URL {0}")]
    Override(&'static str),
}

impl Endpoint {
    /// The endpoint of `region`: its FIPS name if `fips`, or `override_url` (`http` or `https`, a host, perhaps a port)
    /// instead of any name of AWS's.
    pub fn resolve(region: &str, fips: bool, override_url: Option<&str>) -> Result<Self, EndpointError> {
        if !is_plausible_region(region) {
            return Err(EndpointError::Region(region.to_owned()));
        }
        let (scheme, authority) = match override_url {
            Some(_) if fips => return Err(EndpointError::FipsWithOverride),
            Some(url) => parse_override(url)?,
            None => (Scheme::Https, standard_host(region, fips)?),
        };
        match region_of(&authority) {
            Some(host) if host != region => {
                Err(EndpointError::OtherRegion { region: region.to_owned(), host: host.to_owned() })
            }
            Some(_) | None => Ok(Self { scheme, authority, region: region.to_owned() }),
        }
    }

    /// The region that signatures name.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Host, and port unless it is the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether requests travel over TLS: always, unless an override says otherwise.
    pub fn is_https(&self) -> bool {
        match self.scheme {
            Scheme::Http => false,
            Scheme::Https => true,
        }
    }

    /// Whether requests stay on this machine, as far as the name tells: a loopback address, or `localhost`.
    pub fn is_loopback(&self) -> bool {
        let host = self.authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let host = host.map_or(self.authority.as_str(), |(host, _port)| host);
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        address.map_or_else(|| host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
    }
}

/// `https://glacier.us-east-1.amazonaws.com`, for logs.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// The region becomes a part of a host name and of every signature.
fn is_plausible_region(region: &str) -> bool {
    let in_alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=REGION_MAX).contains(&region.len())
        && region.bytes().all(in_alphabet)
        && !region.starts_with('-')
        && !region.ends_with('-')
}

fn standard_host(region: &str, fips: bool) -> Result<String, EndpointError> {
    if FOREIGN_PREFIXES.iter().any(|prefix| region.starts_with(prefix)) {
        return Err(EndpointError::UnknownPartition(region.to_owned()));
    }
    if fips && FIPS_REGIONS.contains(&region) {
        return Ok(format!("glacier-fips.{region}.amazonaws.com"));
    }
    if fips && !region.starts_with(GOVCLOUD_PREFIX) {
        return Err(EndpointError::NoFips(region.to_owned()));
    }
    let suffix = if region.starts_with(CHINA_PREFIX) { "amazonaws.com.cn" } else { "amazonaws.com" };
    Ok(format!("glacier.{region}.{suffix}"))
}

/// The region that AWS's own names say: `glacier.REGION.…`, and with an interface endpoint's id before it.
fn region_of(authority: &str) -> Option<&str> {
    let host = authority.split(':').next()?.trim_end_matches('.');
    let is_awss = ["amazonaws.com", "amazonaws.com.cn", "api.aws"]
        .iter()
        .any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    let mut labels = host.split('.');
    labels.find(|label| ["glacier", "glacier-fips"].contains(label))?;
    labels.next().filter(|_| is_awss)
}

fn parse_override(url: &str) -> Result<(Scheme, String), EndpointError> {
    let url = Url::parse(url).map_err(|_| EndpointError::Override("is not a URL"))?;
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(EndpointError::Override("must begin with http:// or https://")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(EndpointError::Override("must not hold a user name or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(EndpointError::Override("must be scheme, host and port only, without path or query"));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(EndpointError::Override("has no host"))?;
    // `port()` is `None` for the scheme's own port, which HTTP clients leave out of the `host` header, and so do we.
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Ok((scheme, authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(region: &str, fips: bool, url: Option<&str>) -> String {
        Endpoint::resolve(region, fips, url).map_or_else(|e| format!("error: {e}"), |e| e.to_string())
    }

    #[test]
    fn each_partition_has_its_own_names() {
        for (region, fips, expected) in [
            ("us-east-1", false, "https://glacier.us-east-1.amazonaws.com"),
            ("eu-central-1", false, "https://glacier.eu-central-1.amazonaws.com"),
            ("cn-north-1", false, "https://glacier.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", false, "https://glacier.us-gov-west-1.amazonaws.com"),
            ("us-gov-east-1", true, "https://glacier.us-gov-east-1.amazonaws.com"),
            ("us-east-2", true, "https://glacier-fips.us-east-2.amazonaws.com"),
            ("ca-central-1", true, "https://glacier-fips.ca-central-1.amazonaws.com"),
        ] {
            assert_eq!(text(region, fips, None), expected);
        }
    }

    #[test]
    fn a_region_without_fips_is_an_error_that_names_those_with_it() {
        let error = text("eu-west-1", true, None);
        for region in FIPS_REGIONS {
            assert!(error.contains(region), "{error}");
        }
        assert!(matches!(Endpoint::resolve("cn-north-1", true, None), Err(EndpointError::NoFips(_))));
    }

    #[test]
    fn a_partition_whose_names_are_unknown_needs_an_override() {
        for region in ["us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "eusc-de-east-1"] {
            assert!(matches!(Endpoint::resolve(region, false, None), Err(EndpointError::UnknownPartition(_))));
            assert_eq!(text(region, false, Some("https://glacier.example")), "https://glacier.example");
        }
    }

    #[test]
    fn an_override_is_scheme_host_and_port() {
        for (url, expected) in [
            ("http://localhost:4566", "http://localhost:4566"),
            ("http://localhost:4566/", "http://localhost:4566"),
            ("HTTPS://Glacier.Example:443", "https://glacier.example"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            (
                "https://vpce-1.glacier.us-east-1.vpce.amazonaws.com",
                "https://vpce-1.glacier.us-east-1.vpce.amazonaws.com",
            ),
        ] {
            assert_eq!(text("us-east-1", false, Some(url)), expected);
        }
    }

    #[test]
    fn loopback_is_known_by_address_and_by_name() {
        let is_loopback = |url| Endpoint::resolve("us-east-1", false, Some(url)).unwrap().is_loopback();
        for url in
            ["http://127.0.0.1:4566", "http://127.9.9.9", "http://[::1]", "http://[::1]:80", "http://LOCALHOST:1"]
        {
            assert!(is_loopback(url), "{url}");
        }
        assert!(is_loopback("http://glacier.localhost:4566"));
        for url in
            ["http://10.0.0.1:4566", "http://[::2]", "http://[::2]:1", "http://emulator", "http://localhost.evil:80"]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn an_override_that_says_more_or_less_is_refused_and_never_repeated() {
        for url in [
            "",
            "localhost:4566",
            "ftp://h",
            "http://",
            "http://h/base",
            "http://h?q=1",
            "http://h/#f",
            "http://user@h",
            "http://user:hunter2@h",
            "http://h:99999",
        ] {
            let error = Endpoint::resolve("us-east-1", false, Some(url)).unwrap_err();
            assert!(matches!(error, EndpointError::Override(_)), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert_eq!(
            Endpoint::resolve("us-east-1", true, Some("http://h")).unwrap_err(),
            EndpointError::FipsWithOverride
        );
    }

    #[test]
    fn an_endpoint_of_another_region_contradicts_the_region() {
        for (url, host) in [
            ("https://glacier.eu-west-1.amazonaws.com", "eu-west-1"),
            ("https://glacier-fips.us-west-2.amazonaws.com:443", "us-west-2"),
            ("https://glacier.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("https://vpce-1-2.glacier.eu-central-1.vpce.amazonaws.com", "eu-central-1"),
            ("http://glacier.eu-west-1.api.aws:8080", "eu-west-1"),
        ] {
            let (region, host) = ("us-east-1".to_owned(), host.to_owned());
            let error = Endpoint::resolve("us-east-1", false, Some(url)).unwrap_err();
            assert_eq!(error, EndpointError::OtherRegion { region, host: host.clone() }, "{url}");
            assert!(Endpoint::resolve(&host, false, Some(url)).is_ok(), "{url}");
        }
        for ours in ["https://glacier.eu-west-1.example", "https://glacier.internal", "http://127.0.0.1:1"] {
            assert!(Endpoint::resolve("us-east-1", false, Some(ours)).is_ok(), "{ours}");
        }
    }

    #[test]
    fn an_implausible_region_is_refused() {
        let long = "a".repeat(64);
        for region in ["", "US-EAST-1", "us_east_1", "us-east-1.evil.example", "-x", "x-", "a/b", "ä", long.as_str()] {
            assert!(matches!(Endpoint::resolve(region, false, None), Err(EndpointError::Region(_))), "{region}");
        }
    }
}

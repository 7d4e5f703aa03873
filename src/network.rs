//! How the gateway reaches AWS: through which proxy, and which authorities it trusts.
//!
//! One policy for every client of AWS: the one that asks Glacier, and the one that the credential chain uses for STS and
//! for the endpoints that hand out credentials. The latter must never be asked through a proxy, which would see the pod's
//! authorization token or the instance's. Two rules see to that: only `https` is ever proxied, and [`NEVER_PROXIED`] is
//! part of every proxy's exceptions.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Url, redirect, tls};

mod resolver;

pub(crate) use resolver::Resolver;

/// What is on this machine or beside it: loopback, link-local addresses (instance and container metadata, IPv4 and IPv6),
/// and the addresses of AWS's own for IPv6 (instance metadata, pod identity, name servers).
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,fd00:ec2::/32";
/// More header lines than any front end of AWS's sends.
const MAX_HEADERS: usize = 100;
const USER_AGENT: &str = concat!("glacier-gateway/", env!("CARGO_PKG_VERSION"));

/// Why an HTTP client could not be built: as a rule, no CA certificates are installed.
#[derive(Debug, thiserror::Error)]
#[error("the https client for AWS cannot be set up")]
pub struct NetworkSetupError(#[from] reqwest::Error);

/// The way to AWS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSettings {
    /// The proxy for `https`; direct connections without one.
    pub proxy: Option<Proxy>,
    /// Who vouches for AWS.
    pub roots: Roots,
}

/// An HTTP proxy that is asked for tunnels (`CONNECT`), and where not to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// May hold a user name and a password.
    url: Url,
    exceptions: String,
}

/// Why a proxy cannot be used. The URL is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not a URL at all.
    #[error("must be the proxy's address, http://HOST:PORT; it is not a URL")]
    NotUrl,
    /// No proxy that is spoken to in HTTP.
    #[error("must begin with http:// or https://; other kinds of proxies are not supported")]
    Scheme,
    /// A path or more: the proxy has none.
    #[error("must be the proxy's scheme, host and port only, perhaps with a user name and password")]
    Path,
}

/// The authorities that AWS's certificates must come from, and a proxy's over TLS.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Roots {
    /// The environment variable that names them; the system's without one.
    pub named_by: Option<&'static str>,
    /// These and no others, as PEM. Without them, those that the TLS library finds: the system's, or those that
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    pub only: Option<Arc<[u8]>>,
}

impl Proxy {
    /// Reads the proxy's URL, as `HTTPS_PROXY` has it: a scheme may be missing, which means `http`. `exceptions` are
    /// written as `NO_PROXY` is: names (with all names below them), addresses, networks, or `*` for everything, between
    /// commas or spaces. `None` if everything is an exception.
    pub fn parse<'e>(url: &str, exceptions: impl IntoIterator<Item = &'e str>) -> Result<Option<Self>, ProxyError> {
        let url = if url.contains("://") { Url::parse(url) } else { Url::parse(&format!("http://{url}")) };
        let url = url.map_err(|_| ProxyError::NotUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ProxyError::Scheme);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError::Path);
        }
        let split = |list: &'e str| list.split(|c: char| c == ',' || c.is_whitespace());
        let exceptions: Vec<_> =
            exceptions.into_iter().flat_map(split).map(exception).filter(|one| !one.is_empty()).collect();
        if exceptions.contains(&"*") {
            return Ok(None);
        }
        let exceptions = format!("{NEVER_PROXIED},{}", exceptions.join(","));
        Ok(Some(Self { url, exceptions }))
    }
}

/// An entry as the HTTP client wants it: without brackets, a port, or the star of `*.example.com`.
fn exception(entry: &str) -> &str {
    if let Some((address, _port)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    let host = match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        // An IPv6 address.
        Some(_) | None => entry,
    };
    if host.starts_with("*.") { &host[1..] } else { host }
}

/// Scheme, host and port, for logs.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.url.port_or_known_default().unwrap_or_default();
        write!(f, "{}://{}:{port}", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self}, except {})", self.exceptions)
    }
}

/// Where they come from, for logs.
impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.named_by.unwrap_or("system"))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({self}, {:?} bytes)", self.only.as_ref().map(|pem| pem.len()))
    }
}

impl NetworkSettings {
    /// A client that uses proxy and roots. Says everything that matters: the library's defaults follow redirects, obey
    /// proxy variables and know no timeouts.
    pub(crate) fn client(
        &self,
        resolver: Resolver,
        connect_timeout: Duration,
        refine: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, NetworkSetupError> {
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .tls_version_min(tls::Version::TLS_1_2)
            .tls_sni(true)
            .tls_sslkeylogfile(false)
            .http1_only()
            .http1_max_headers(MAX_HEADERS)
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            // The library's own reading of the environment.
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .no_hickory_dns()
            .dns_resolver(resolver)
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            // Would write every byte, the signature's too, to the log.
            .connection_verbose(false);
        if let Some(proxy) = &self.proxy {
            let exceptions = NoProxy::from_string(&proxy.exceptions);
            client = client.proxy(reqwest::Proxy::https(proxy.url.clone())?.no_proxy(exceptions));
        }
        if let Some(pem) = &self.roots.only {
            client = client.tls_certs_only(Certificate::from_pem_bundle(pem)?);
        }
        Ok(refine(client).build()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Option<Proxy>, ProxyError> {
        Proxy::parse(url, [])
    }

    #[test]
    fn a_proxys_url_is_scheme_host_and_port_and_the_password_is_never_shown() {
        for (url, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example:3128/", "http://proxy.example:3128"),
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("10.0.0.1:3128", "http://10.0.0.1:3128"),
            ("https://proxy.example", "https://proxy.example:443"),
            ("http://me:marked@proxy.example:8080", "http://proxy.example:8080"),
            ("me:marked@proxy.example:8080", "http://proxy.example:8080"),
        ] {
            let proxy = proxy(url).unwrap().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(!format!("{proxy:?}").contains("marked"), "{proxy:?}");
        }
    }

    #[test]
    fn what_is_no_http_proxy_is_refused() {
        for (url, error) in [
            ("http://", ProxyError::NotUrl),
            ("http://proxy.example:http", ProxyError::NotUrl),
            ("://", ProxyError::NotUrl),
            ("socks5://proxy.example:1080", ProxyError::Scheme),
            ("ftp://proxy.example", ProxyError::Scheme),
            ("http://proxy.example/pac", ProxyError::Path),
            ("http://proxy.example?x", ProxyError::Path),
        ] {
            assert_eq!(proxy(url), Err(error), "{url}");
        }
    }

    #[test]
    fn exceptions_are_read_in_every_common_spelling() {
        let exceptions = |list: &'static str| {
            let proxy = Proxy::parse("http://proxy.example", [list, "pods.example"]).unwrap()?;
            Some(proxy.exceptions.strip_prefix(NEVER_PROXIED).unwrap().trim_start_matches(',').to_owned())
        };
        for (list, read) in [
            ("", "pods.example"),
            ("a.example, .b.example,,10.0.0.0/8", "a.example,.b.example,10.0.0.0/8,pods.example"),
            ("a.example b.example", "a.example,b.example,pods.example"),
            ("*.a.example,b.example:443", ".a.example,b.example,pods.example"),
            ("[::1]:443,[fd00::1],fd00::/8", "::1,fd00::1,fd00::/8,pods.example"),
        ] {
            assert_eq!(exceptions(list).as_deref(), Some(read), "{list}");
        }
        assert_eq!(exceptions("*"), None);
        assert_eq!(exceptions("a.example, *"), None);
    }
}

//! The way to AWS, in the variables that AWS's own tools heed (`deploy/README.md`, "The way to AWS").
//!
//! `HTTP_PROXY` and `ALL_PROXY` are not read: nothing that travels in clear is sent through a proxy.

use std::{path::Path, sync::Arc};

use http::Uri;

use super::values::Problems;
use crate::{
    network::{NetworkSettings, Proxy, Roots},
    server::tls::{Authorities, MaterialError},
};

/// Each also in lower case, which counts where this spelling is not set.
const PROXY: &str = "HTTPS_PROXY";
const EXCEPTIONS: &str = "NO_PROXY";
/// Endpoints on this machine or beside it that hand out credentials.
const HANDS_OUT_CREDENTIALS: [&str; 2] = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
const ROOTS: &str = "AWS_CA_BUNDLE";
/// What the TLS library reads by itself; it passes over a file that is of no use.
const SYSTEM_ROOTS: &str = "SSL_CERT_FILE";

/// Proxy and roots for all clients of AWS.
pub(super) fn read(environment: &impl Fn(&str) -> Option<String>, problems: &mut Problems) -> NetworkSettings {
    NetworkSettings { proxy: proxy(environment, problems), roots: roots(environment, problems) }
}

fn proxy(environment: &impl Fn(&str) -> Option<String>, problems: &mut Problems) -> Option<Proxy> {
    let in_either_case = |name: &str| {
        let lower = name.to_ascii_lowercase();
        environment(name).map(|value| (name.to_owned(), value)).or_else(|| Some((lower.clone(), environment(&lower)?)))
    };
    let (name, url) = in_either_case(PROXY)?;
    let exceptions = in_either_case(EXCEPTIONS).map(|(_, list)| list);
    let hosts: Vec<_> = HANDS_OUT_CREDENTIALS.iter().filter_map(|name| host(&environment(name)?)).collect();
    let exceptions = exceptions.iter().chain(&hosts).map(String::as_str);
    Proxy::parse(url.trim(), exceptions).unwrap_or_else(|error| {
        problems.add(format!("{name}: {error}"));
        None
    })
}

/// The chain says what is wrong with a URL that is none.
fn host(url: &str) -> Option<String> {
    url.trim().parse::<Uri>().ok()?.host().map(str::to_owned)
}

fn roots(environment: &impl Fn(&str) -> Option<String>, problems: &mut Problems) -> Roots {
    let mut read = |name: &str, unusable: fn(&MaterialError) -> bool| {
        let path = environment(name)?;
        let pem = problems.content(name, Path::new(&path))?;
        match Authorities::from_pem(&pem).err().filter(unusable) {
            Some(error) => {
                problems.add(format!("{name}: {path}: {error}"));
                None
            }
            None => Some(pem),
        }
    };
    if environment(ROOTS).is_some() {
        return Roots { named_by: Some(ROOTS), only: read(ROOTS, |_| true).map(Arc::from) };
    }
    // One certificate that cannot be used among many is passed over, as all programs do that read this file.
    let _checked = read(SYSTEM_ROOTS, |error| matches!(error, MaterialError::NotPem | MaterialError::NoCertificate));
    Roots { named_by: environment(SYSTEM_ROOTS).map(|_| SYSTEM_ROOTS), only: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in(variables: &[(&str, &str)]) -> (NetworkSettings, String) {
        let mut problems = Problems::default();
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let settings = read(&value, &mut problems);
        (settings, if problems.is_empty() { String::new() } else { problems.to_string() })
    }

    fn proxy_in(variables: &[(&str, &str)]) -> Option<String> {
        let (settings, problems) = read_in(variables);
        assert_eq!(problems, "");
        settings.proxy.map(|proxy| format!("{proxy:?}"))
    }

    #[test]
    fn the_proxy_is_named_in_upper_or_lower_case_and_other_variables_name_none() {
        let upper = proxy_in(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")]).unwrap();
        assert!(upper.contains("http://upper:1"), "{upper}");
        let lower = proxy_in(&[("https_proxy", "http://lower:1"), ("no_proxy", "a.example")]).unwrap();
        assert!(lower.contains("http://lower:1") && lower.contains(",a.example"), "{lower}");
        for other in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            assert_eq!(proxy_in(&[(other, "http://other:1")]), None, "{other}");
        }
        assert_eq!(proxy_in(&[("HTTPS_PROXY", "http://upper:1"), ("NO_PROXY", "*")]), None);
    }

    /// C13
    #[test]
    fn endpoints_that_hand_out_credentials_are_exceptions_wherever_they_are() {
        let proxy = proxy_in(&[
            ("HTTPS_PROXY", "http://proxy:1"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://credentials.example:8443/v1/creds"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://[fd00:1::1]:8443/"),
        ])
        .unwrap();
        for host in [",credentials.example", ",fd00:1::1", "169.254.0.0/16", "fd00:ec2::/32", "127.0.0.0/8", "::1,"] {
            assert!(proxy.contains(host), "{host}: {proxy}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_by_the_name_of_its_variable_and_without_the_password() {
        for name in ["HTTPS_PROXY", "https_proxy"] {
            for url in ["socks5://me:marked@proxy:1", "http://me:marked@proxy:port", "http://me:marked@proxy/path"] {
                let (_, problems) = read_in(&[(name, url)]);
                assert!(problems.contains(&format!("\n  {name}: ")) && !problems.contains("marked"), "{problems}");
            }
        }
        let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for name in [ROOTS, SYSTEM_ROOTS] {
            for path in ["/nowhere.pem", no_pem] {
                let (_, problems) = read_in(&[(name, path)]);
                assert!(problems.contains(&format!("\n  {name}: ")) && problems.contains(path), "{problems}");
            }
        }
        let (_, problems) = read_in(&[("HTTPS_PROXY", "socks5://proxy"), (ROOTS, "/nowhere.pem")]);
        assert_eq!(problems.lines().count(), 3, "{problems}");
    }
}

//! Who calls: an address, and the identity that a verified client certificate gave, if there was one.
//!
//! An identity is what policies and limits name. It comes from the certificate's subject alternative names: the one
//! SPIFFE ID, or, without one, the DNS names.

use std::{fmt, net::SocketAddr, sync::Arc};

/// A caller, as known once its connection is made. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Who it is; absent without mTLS.
    pub identity: Option<Arc<CallerIdentity>>,
}

impl Caller {
    /// A caller of whom only the address is known.
    pub fn anonymous(address: SocketAddr) -> Self {
        Self { address, identity: None }
    }
}

/// The name or names of a verified caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerIdentity {
    /// `spiffe://trust-domain/path` (SPIFFE X.509-SVID: the only URI among the names).
    Spiffe(String),
    /// DNS names, in lower case and in the certificate's order; none for a certificate without a usable name, which no
    /// policy knows, and which shares its limits with all such.
    Dns(Vec<String>),
}

impl CallerIdentity {
    /// Of a certificate without a usable name.
    pub const NAMELESS: Self = Self::Dns(Vec::new());
}

/// The names of a certificate are no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// An X.509-SVID must have exactly one URI (SPIFFE X.509-SVID §2).
    #[error("the client certificate has {0} URIs among its names; exactly one is allowed")]
    SeveralUris(usize),
}

impl CallerIdentity {
    /// The identity that the subject alternative names give: the SPIFFE ID, else the DNS names, else none.
    pub fn from_names<'n>(
        uris: impl IntoIterator<Item = &'n str>,
        dns: impl IntoIterator<Item = &'n str>,
    ) -> Result<Option<Self>, IdentityError> {
        let uris: Vec<_> = uris.into_iter().collect();
        match uris[..] {
            [uri] if uri.starts_with("spiffe://") => return Ok(Some(Self::Spiffe(uri.to_owned()))),
            [] | [_] => {}
            [..] => return Err(IdentityError::SeveralUris(uris.len())),
        }
        let dns: Vec<_> = dns.into_iter().map(str::to_ascii_lowercase).collect();
        Ok(if dns.is_empty() { None } else { Some(Self::Dns(dns)) })
    }

    /// All names under which a policy may know this caller.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::Spiffe(id) => std::slice::from_ref(id).iter().map(String::as_str),
            Self::Dns(names) => names.iter().map(String::as_str),
        }
    }
}

/// The name for logs: the SPIFFE ID, or the first DNS name, if there is one.
impl fmt::Display for CallerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names().next().unwrap_or("(nameless)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_comes_before_dns_names() {
        let identity = CallerIdentity::from_names(["spiffe://prod/ns/a/sa/b"], ["b.a.svc"]).unwrap().unwrap();
        assert_eq!(identity, CallerIdentity::Spiffe("spiffe://prod/ns/a/sa/b".to_owned()));
        assert_eq!(identity.to_string(), "spiffe://prod/ns/a/sa/b");
    }

    #[test]
    fn without_a_spiffe_id_the_dns_names_count_in_lower_case() {
        let identity = CallerIdentity::from_names(["https://example.com"], ["B.a.svc", "b"]).unwrap().unwrap();
        assert_eq!(identity.names().collect::<Vec<_>>(), ["b.a.svc", "b"]);
    }

    #[test]
    fn a_certificate_without_names_has_no_identity_and_one_with_two_uris_is_refused() {
        assert_eq!(CallerIdentity::from_names([], []), Ok(None));
        assert_eq!(
            CallerIdentity::from_names(["spiffe://a/b", "https://c"], ["d"]),
            Err(IdentityError::SeveralUris(2))
        );
    }
}

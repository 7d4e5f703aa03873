//! Who calls: an address, and the identity that a verified client certificate gave, if there was one.
//!
//! An identity is what policies and limits name. It comes from the certificate's subject alternative names: the one
//! SPIFFE ID, or, without one, the DNS names.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

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

    /// Whose lines these are in the log's budget: a verified identity's, whatever its address, else an address's.
    pub fn source(&self) -> Source<'_> {
        match &self.identity {
            Some(identity) => Source::Identity(identity),
            None => Source::of_address(self.address),
        }
    }

    /// The caller for the log: by the name under which a policy allowed it, if that is known, else by all.
    pub fn shown(&self, allowed_as: Option<usize>) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| {
            if let Some(identity) = &self.identity {
                match allowed_as.and_then(|index| identity.names().nth(index)) {
                    Some(name) => write!(f, "{name} ")?,
                    None => write!(f, "{identity} ")?,
                }
            }
            fmt::Display::fmt(&self.address, f)
        })
    }
}

/// Who causes something, as far as a budget tells callers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source<'c> {
    /// A verified identity.
    Identity(&'c CallerIdentity),
    /// An address; of an IPv6 one the first 64 bits, since one host may have all of the others.
    Address(IpAddr),
}

impl Source<'_> {
    /// Of a caller of whom only the address is known.
    pub fn of_address(address: SocketAddr) -> Self {
        Self::Address(match address.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        })
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

/// Most names that are shown; a certificate may have hundreds.
const SHOWN_NAMES: usize = 5;

/// The names for logs and messages: the SPIFFE ID, or the DNS names, the first few of them.
impl fmt::Display for CallerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.names();
        f.write_str(names.next().unwrap_or("(nameless)"))?;
        names.by_ref().take(SHOWN_NAMES - 1).try_for_each(|name| write!(f, ",{name}"))?;
        match names.count() {
            0 => Ok(()),
            more => write!(f, ",(+{more})"),
        }
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
    fn the_log_shows_the_name_that_was_allowed_or_the_first_few() {
        let address = ([127, 0, 0, 1], 7).into();
        let named = |names: &[&str]| {
            let identity = CallerIdentity::from_names([], names.iter().copied()).unwrap();
            Caller { address, identity: identity.map(Arc::new) }
        };
        let (one, several) = (named(&["a"]), named(&["a", "b", "c", "d", "e", "f", "g"]));
        assert_eq!(Caller::anonymous(address).shown(None).to_string(), "127.0.0.1:7");
        assert_eq!(one.shown(None).to_string(), "a 127.0.0.1:7");
        assert_eq!(several.shown(None).to_string(), "a,b,c,d,e,(+2) 127.0.0.1:7");
        assert_eq!(several.shown(Some(6)).to_string(), "g 127.0.0.1:7");
        let nameless = Caller { address, identity: Some(Arc::new(CallerIdentity::NAMELESS)) };
        assert_eq!(nameless.shown(None).to_string(), "(nameless) 127.0.0.1:7");
    }

    #[test]
    fn callers_are_told_apart_by_identity_else_by_address_an_ipv6_one_by_its_network() {
        let of = |address: &str| Source::of_address(address.parse().unwrap());
        assert_eq!(of("127.0.0.1:1"), of("[::ffff:127.0.0.1]:2"));
        assert_ne!(of("127.0.0.1:1"), of("127.0.0.2:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:0:0:2]:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        let known = |port| Caller {
            address: ([127, 0, 0, 1], port).into(),
            identity: Some(Arc::new(CallerIdentity::Dns(vec!["a".to_owned()]))),
        };
        assert_eq!(known(1).source(), known(2).source());
        assert_ne!(known(1).source(), Caller::anonymous(known(1).address).source());
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

//! What TLS is made of, parsed: a certificate chain that is valid today, its key, and authorities.
//!
//! No message repeats anything of a file: somebody may have named a key where a certificate belongs.

use std::{fmt, sync::Arc, time::SystemTime};

use time::{UtcDateTime, format_description::well_known::Rfc3339};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use super::{HTTP_2, certificate::Certificate};

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// Not PEM, or cut off in the middle.
    #[error("is not whole, valid PEM")]
    NotPem,
    /// No certificate in it.
    #[error("holds no certificate in PEM")]
    NoCertificate,
    /// No key in it.
    #[error("holds no private key in PEM that is not encrypted (PKCS#8, PKCS#1 or SEC 1)")]
    NoKey,
    /// A certificate that is none.
    #[error("holds a certificate that cannot be used: {0}")]
    Certificate(String),
    /// A key that is none.
    #[error("holds a private key of no kind that TLS can use")]
    Key,
    /// Every caller would refuse it.
    #[error("holds a certificate that ended at {0}")]
    Expired(Date),
    /// Every caller would refuse it.
    #[error("holds a certificate that begins only at {0}")]
    NotYetValid(Date),
    /// The key is another certificate's.
    #[error("holds a private key that is not the certificate's")]
    Mismatch,
}

/// A date, shown as RFC 3339 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date(SystemTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&UtcDateTime::from(self.0).format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

fn unusable(error: impl fmt::Display) -> MaterialError {
    MaterialError::Certificate(error.to_string())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| MaterialError::NotPem)?;
    if certificates.is_empty() { Err(MaterialError::NoCertificate) } else { Ok(certificates) }
}

/// A certificate and those that lead from it to an authority.
#[derive(Debug)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// When the first of them ends.
    not_after: SystemTime,
}

impl Chain {
    /// Reads a chain, leaf first. A leaf that is not valid `now` is refused: no caller would accept it.
    pub fn from_pem(pem: &[u8], now: SystemTime) -> Result<Self, MaterialError> {
        let certificates = certificates(pem)?;
        let leaf = certificates.first().ok_or(MaterialError::NoCertificate)?;
        let (not_before, not_after) = dates(leaf)?;
        if now > not_after {
            return Err(MaterialError::Expired(Date(not_after)));
        }
        if now < not_before {
            return Err(MaterialError::NotYetValid(Date(not_before)));
        }
        let not_after = first_end(&certificates).unwrap_or(not_after);
        Ok(Self { certificates, not_after })
    }
}

/// When the first of these ends, as far as their dates can be read: nothing is refused for it.
fn first_end(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    certificates.iter().filter_map(|der| dates(der).ok()).map(|(_, not_after)| not_after).min()
}

fn dates(der: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), MaterialError> {
    Certificate::read(der).and_then(|certificate| certificate.dates()).map_err(unusable)
}

/// The private key of a certificate.
pub struct Key(Arc<dyn SigningKey>);

impl Key {
    /// Reads the first key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        use tokio_rustls::rustls::pki_types::pem::Error;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
            Error::NoItemsFound => MaterialError::NoKey,
            // An open enum.
            _ => MaterialError::NotPem,
        })?;
        Ok(Self(provider().key_provider.load_private_key(key).map_err(|_| MaterialError::Key)?))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Who may issue callers' certificates.
#[derive(Debug)]
pub struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    not_after: Option<SystemTime>,
}

impl Authorities {
    /// Reads their certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        let certificates = certificates(pem)?;
        let not_after = first_end(&certificates);
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(unusable)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider())).build();
        Ok(Self { verifier: verifier.map_err(unusable)?, not_after })
    }
}

/// What every handshake goes by.
pub struct Terms {
    config: Arc<ServerConfig>,
    not_after: SystemTime,
    authorities_not_after: Option<SystemTime>,
}

impl Terms {
    /// Puts the parts together, which must fit. With authorities, callers must have a certificate of theirs.
    pub fn new(chain: Chain, key: Key, authorities: Option<Authorities>) -> Result<Self, MaterialError> {
        use tokio_rustls::rustls::{Error, InconsistentKeys};
        let Chain { certificates, not_after } = chain;
        let certified = CertifiedKey::new(certificates, key.0);
        match certified.keys_match() {
            Ok(()) => {}
            // Every key of the provider's own can say what its public half is.
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch | InconsistentKeys::Unknown)) => {
                return Err(MaterialError::Mismatch);
            }
            Err(error) => return Err(unusable(error)),
        }
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?;
        let authorities_not_after = authorities.as_ref().and_then(|authorities| authorities.not_after);
        let builder = match authorities {
            Some(Authorities { verifier, .. }) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        // No sessions are resumed: that would skip the look at the client's certificate, which may have ended, and
        // connections that live for half an hour gain nothing by it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), not_after, authorities_not_after })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// When the first certificate of the chain ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// When the first of the callers' authorities ends, if there are any whose dates can be read. Nothing is refused for it:
    /// what an authority has issued should end before.
    pub fn authorities_not_after(&self) -> Option<SystemTime> {
        self.authorities_not_after
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The only one; rustls is never left to find one by itself.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn begin() -> SystemTime {
        UNIX_EPOCH + 400_000 * HOUR
    }

    /// Certificate and key, valid for the hour after [`begin`].
    fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(["gateway".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (begin().into(), (begin() + HOUR).into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn chain(pem: &str, now: SystemTime) -> Result<Chain, MaterialError> {
        Chain::from_pem(pem.as_bytes(), now)
    }

    #[test]
    fn a_chain_is_good_from_its_first_second_to_its_last() {
        let (certificate, _) = pair(|_| {});
        for now in [begin(), begin() + HOUR / 2, begin() + HOUR] {
            assert_eq!(chain(&certificate, now).unwrap().not_after, begin() + HOUR);
        }
        let second = Duration::from_secs(1);
        let early = chain(&certificate, begin() - second).unwrap_err();
        assert_eq!(early.to_string(), "holds a certificate that begins only at 2015-08-19T16:00:00Z");
        let late = chain(&certificate, begin() + HOUR + second).unwrap_err();
        assert_eq!(late.to_string(), "holds a certificate that ended at 2015-08-19T17:00:00Z");
    }

    #[test]
    fn the_dates_of_odd_certificates_are_read_as_well() {
        let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let for_clients = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        };
        let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
        for (certificate, _) in [pair(authority), pair(for_clients), pair(nameless)] {
            assert_eq!(chain(&certificate, begin()).unwrap().not_after, begin() + HOUR);
            assert!(matches!(chain(&certificate, begin() - HOUR), Err(MaterialError::NotYetValid(_))));
        }
        let (endless, _) = pair(|params| {
            params.not_before = rcgen::date_time_ymd(1970, 1, 1);
            params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        });
        let ends = chain(&endless, UNIX_EPOCH).unwrap().not_after;
        assert_eq!(Date(ends).to_string(), "9999-12-31T00:00:00Z");
    }

    #[test]
    fn of_several_certificates_the_first_to_end_counts() {
        let until = |hours: u32| {
            let authority = move |params: &mut CertificateParams| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.not_after = (begin() + hours * HOUR).into();
            };
            pair(authority).0
        };
        let ((leaf, key), sooner, later) =
            (pair(|params| params.not_after = (begin() + 5 * HOUR).into()), until(3), until(9));
        let terms = |chain: &str, authorities: Option<&str>| {
            let authorities = authorities.map(|pem| Authorities::from_pem(pem.as_bytes()).unwrap());
            let chain = Chain::from_pem(chain.as_bytes(), begin()).unwrap();
            let terms = Terms::new(chain, Key::from_pem(key.as_bytes()).unwrap(), authorities).unwrap();
            (terms.not_after(), terms.authorities_not_after())
        };
        assert_eq!(terms(&leaf, None), (begin() + 5 * HOUR, None));
        let ends = terms(&[&*leaf, &sooner].concat(), Some(&[&*later, &sooner].concat()));
        assert_eq!(ends, (begin() + 3 * HOUR, Some(begin() + 3 * HOUR)));
        assert_eq!(terms(&[&*leaf, &later].concat(), Some(&later)), (begin() + 5 * HOUR, Some(begin() + 9 * HOUR)));
    }

    #[test]
    fn only_the_key_of_the_certificate_fits_it() {
        let ((certificate, key), (_, other)) = (pair(|_| {}), pair(|_| {}));
        let terms =
            |key: &str| Terms::new(chain(&certificate, begin()).unwrap(), Key::from_pem(key.as_bytes()).unwrap(), None);
        assert_eq!(terms(&key).unwrap().not_after(), begin() + HOUR);
        assert_eq!(terms(&other).unwrap_err(), MaterialError::Mismatch);
    }

    #[test]
    fn files_that_hold_something_else_are_refused_in_words_that_repeat_nothing_of_them() {
        let (certificate, key) = pair(|_| {});
        let garbled = certificate.replace("MII", "M!!");
        let lying = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let lying_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let authorities = |pem: &str| Authorities::from_pem(pem.as_bytes()).map(|_| ());
        let chain = |pem: &str| chain(pem, begin()).map(|_| ());
        let private = |pem: &str| Key::from_pem(pem.as_bytes()).map(|_| ());
        for read in [&chain as &dyn Fn(&str) -> Result<(), MaterialError>, &authorities] {
            assert_eq!(read(""), Err(MaterialError::NoCertificate));
            assert_eq!(read("marked"), Err(MaterialError::NoCertificate));
            assert_eq!(read(&key), Err(MaterialError::NoCertificate));
            assert_eq!(read(&garbled), Err(MaterialError::NotPem));
            assert_eq!(read(&certificate[..certificate.len() - 40]), Err(MaterialError::NotPem));
            assert!(matches!(read(lying), Err(MaterialError::Certificate(_))));
            assert_eq!(read(&format!("a comment\n{certificate}{key}")), Ok(()));
        }
        assert_eq!(private(""), Err(MaterialError::NoKey));
        assert_eq!(private(&certificate), Err(MaterialError::NoKey));
        assert_eq!(private(&encrypted), Err(MaterialError::NoKey));
        assert_eq!(private(&key[..key.len() - 40]), Err(MaterialError::NotPem));
        assert_eq!(private(lying_key), Err(MaterialError::Key));
        assert_eq!(private(&format!("{certificate}{key}")), Ok(()));
    }

    /// P6: whatever was written so far when the file is read.
    #[test]
    fn no_beginning_of_a_file_is_taken_for_the_whole() {
        let (certificate, key) = pair(|_| {});
        let (certificate, key) = (certificate.trim_end(), key.trim_end());
        for end in 0..certificate.len() {
            assert!(Chain::from_pem(&certificate.as_bytes()[..end], begin()).is_err(), "{end}");
        }
        for end in 0..key.len() {
            assert!(Key::from_pem(&key.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let (certificate, key) = pair(|_| {});
        let (chain, key) = (chain(&certificate, begin()).unwrap(), Key::from_pem(key.as_bytes()).unwrap());
        assert_eq!(format!("{key:?}"), "Key");
        let terms = format!("{:?}", Terms::new(chain, key, None).unwrap());
        assert!(terms.starts_with("Terms { not_after: ") && terms.ends_with(", .. }"), "{terms}");
    }
}

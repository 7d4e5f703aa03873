//! What we read in a certificate: from when to when it is valid, and whom it names. rustls has verified it, or will, and does
//! not give away what it read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::DnsName;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, SubjectAlternativeName},
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::FromDer as _,
    time::ASN1Time,
};

/// A certificate that cannot be read. Nobody is served for one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Unreadable {
    #[error("it is no X.509 certificate")]
    Certificate,
    #[error("its dates are no dates")]
    Dates,
    #[error("its alternative names are malformed")]
    Names,
}

/// A certificate, read.
#[derive(Debug)]
pub(super) struct Certificate<'d>(X509Certificate<'d>);

impl<'d> Certificate<'d> {
    pub(super) fn read(der: &'d [u8]) -> Result<Self, Unreadable> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self(certificate)),
            Ok(_) | Err(_) => Err(Unreadable::Certificate),
        }
    }

    /// The first and the last moment at which it is valid.
    pub(super) fn dates(&self) -> Result<(SystemTime, SystemTime), Unreadable> {
        let validity = self.0.validity();
        Ok((date(validity.not_before)?, date(validity.not_after)?))
    }

    /// Whom it names.
    pub(super) fn names(&self) -> Result<Names<'d>, Unreadable> {
        let extension = self.0.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME).map_err(|_| Unreadable::Names)?;
        let mut read = Names::default();
        let Some(extension) = extension else { return Ok(read) };
        let names = match SubjectAlternativeName::from_der(extension.value) {
            Ok(([], names)) => names.general_names,
            Ok(_) | Err(_) => return Err(Unreadable::Names),
        };
        for name in names {
            match name {
                // RFC 3986 allows no other characters, and what an identity holds is logged.
                GeneralName::URI(uri) if uri.bytes().all(|byte| byte.is_ascii_graphic()) => read.uris.push(uri),
                GeneralName::DNSName(name) if is_dns_name(name) => read.dns.push(name),
                GeneralName::URI(_) | GeneralName::Invalid(..) => return Err(Unreadable::Names),
                // Nobody's here.
                GeneralName::DNSName(_)
                | GeneralName::OtherName(..)
                | GeneralName::RFC822Name(_)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::IPAddress(_)
                | GeneralName::RegisteredID(_) => {}
            }
        }
        Ok(read)
    }
}

/// The subject alternative names, every one of these kinds, in the certificate's order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names<'d> {
    pub(super) uris: Vec<&'d str>,
    pub(super) dns: Vec<&'d str>,
}

/// Whether this is a name in DNS, or a certificate's wildcard for some. Anything else in its place names nobody.
fn is_dns_name(name: &str) -> bool {
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok()
}

fn date(time: ASN1Time) -> Result<SystemTime, Unreadable> {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    let date = if time.timestamp() < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    date.ok_or(Unreadable::Dates)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    /// With this in place of the encoded names.
    fn encoded(names: &[u8]) -> Vec<u8> {
        certificate(|params| params.custom_extensions.push(extension(names)))
    }

    fn extension(names: &[u8]) -> CustomExtension {
        CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_vec())
    }

    #[track_caller]
    fn assert_names(der: &[u8], uris: &[&str], dns: &[&str]) {
        let names = Certificate::read(der).unwrap().names();
        assert_eq!(names, Ok(Names { uris: uris.to_vec(), dns: dns.to_vec() }));
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    fn name(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    /// Issue 17: that only the first was read was seen by no test.
    #[test]
    fn every_name_is_read_in_order_whatever_is_between_them() {
        let id = "spiffe://prod/ns/a/sa/b";
        let address = SanType::IpAddress([10, 0, 0, 1].into());
        let all = [name("a.svc"), address, uri(id), name("b.svc"), uri("https://c"), name("*.c.svc"), uri(id)];
        let der = certificate(|params| params.subject_alt_names.extend(all));
        assert_names(&der, &[id, "https://c", id], &["a.svc", "b.svc", "*.c.svc"]);
        assert_names(&certificate(|_| {}), &[], &[]);
    }

    #[test]
    fn names_that_cannot_be_read_name_nobody_and_nobody_is_served_for_them() {
        // A sequence of one DNS name, "a", to see that the encoding is right.
        assert_names(&encoded(b"\x30\x03\x82\x01a"), &[], &["a"]);
        for malformed in [
            // Not a sequence; cut off; more after its end; a name that is cut off; a name of no kind.
            &b"\x31\x03\x82\x01a"[..],
            b"\x30\x05\x82\x01a",
            b"\x30\x03\x82\x01aa",
            b"\x30\x03\x82\x02a",
            b"\x30\x03\x8f\x01a",
            b"\x30\x03\x02\x01a",
            b"",
            // A URI and a DNS name that are no UTF-8; a URI that would move a terminal, and one with a space.
            b"\x30\x0d\x86\x0bspiffe://\xff/",
            b"\x30\x06\x82\x01a\x82\x01\xff",
            b"\x30\x0f\x86\x0dspiffe://a/\x1b[",
            b"\x30\x0e\x86\x0cspiffe://a/ b",
        ] {
            let names = Certificate::read(&encoded(malformed)).unwrap().names().unwrap_err();
            assert_eq!(names, Unreadable::Names, "{malformed:?}");
        }
        // Two extensions of names, and neither may be the one that counts.
        let twice = certificate(|params| {
            params.subject_alt_names.push(name("a"));
            params.custom_extensions.push(extension(b"\x30\x03\x82\x01b"));
        });
        assert_eq!(Certificate::read(&twice).unwrap().names(), Err(Unreadable::Names));
    }

    #[test]
    fn what_is_no_name_in_dns_is_passed_over() {
        assert_names(&encoded(b"\x30\x09\x82\x01a\x82\x01 \x82\x01*"), &[], &["a"]);
        assert_names(&encoded(b"\x30\x06\x82\x04a\x1b[b"), &[], &[]);
    }

    #[test]
    fn no_part_of_a_certificate_is_one_and_neither_is_one_with_more_behind() {
        let der = certificate(|params| params.subject_alt_names.push(name("a")));
        assert!(Certificate::read(&der).is_ok());
        for end in 0..der.len() {
            assert_eq!(Certificate::read(&der[..end]).unwrap_err(), Unreadable::Certificate);
        }
        assert_eq!(Certificate::read(&[&der[..], b"\0"].concat()).unwrap_err(), Unreadable::Certificate);
    }
}

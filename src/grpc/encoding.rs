//! How a caller compresses its messages: not at all, or with gzip (gRPC's documents, "gRPC over HTTP2" and "Compression").

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::status::CallError;

pub(super) static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The value of `grpc-accept-encoding`: what [`Encoding`] knows.
pub(super) const ACCEPTED: &str = "identity,gzip";

/// The encoding of those messages of a call that are flagged as compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// No message may be flagged.
    Identity,
    /// RFC 1952.
    Gzip,
}

impl Encoding {
    /// Reads `grpc-encoding`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, CallError<'static>> {
        match headers.get(&GRPC_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(_) => Err(CallError::UnknownEncoding),
        }
    }

    /// Tells a caller that compresses what it may use ("Compression", on encodings that are not disclosed otherwise).
    pub(super) fn disclose(self, headers: &mut HeaderMap) {
        match self {
            Self::Identity => {}
            Self::Gzip => {
                headers.insert(&GRPC_ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
            }
        }
    }

    /// Decompresses a message that is flagged as compressed. Never holds more than `limit` bytes of it, plus one.
    pub(super) fn decompress(self, message: &[u8], limit: usize) -> Result<Bytes, CallError<'static>> {
        match self {
            Self::Identity => Err(CallError::CompressedWithoutEncoding),
            Self::Gzip => {
                let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
                let mut plain = Vec::new();
                MultiGzDecoder::new(message)
                    .take(most)
                    .read_to_end(&mut plain)
                    .map_err(|_| CallError::NoRequest("the message is not valid gzip".to_owned()))?;
                if plain.len() > limit { Err(CallError::TooLarge) } else { Ok(plain.into()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn named(value: &'static str) -> Result<Encoding, CallError<'static>> {
        Encoding::of(&HeaderMap::from_iter([(GRPC_ENCODING.clone(), HeaderValue::from_static(value))]))
    }

    #[test]
    fn gzip_and_identity_are_known_and_nothing_else() {
        assert_eq!(Encoding::of(&HeaderMap::new()).unwrap(), Encoding::Identity);
        assert_eq!(named("identity").unwrap(), Encoding::Identity);
        assert_eq!(named("gzip").unwrap(), Encoding::Gzip);
        for unknown in ["deflate", "zstd", "GZIP", "gzip, identity", ""] {
            assert!(matches!(named(unknown), Err(CallError::UnknownEncoding)), "{unknown:?}");
        }
    }

    /// D22: what counts is the size of the message, not of what came.
    #[test]
    fn a_message_is_decompressed_up_to_the_limit() {
        let decompress = |message: &[u8]| Encoding::Gzip.decompress(message, 1000);
        assert_eq!(decompress(&gzip(b"")).unwrap(), Bytes::new());
        assert_eq!(decompress(&gzip(&[7; 1000])).unwrap(), vec![7; 1000]);
        // RFC 1952 allows several members.
        assert_eq!(decompress(&[gzip(b"a"), gzip(b"b")].concat()).unwrap(), "ab");
        for bomb in [gzip(&[7; 1001]), gzip(&vec![0; 1 << 20]), [gzip(&[7; 1000]), gzip(b"b")].concat()] {
            assert!(matches!(decompress(&bomb), Err(CallError::TooLarge)));
        }
    }

    #[test]
    fn what_is_not_gzip_is_refused() {
        let whole = gzip(b"a message");
        let (cut, mut broken) = (&whole[..whole.len() - 1], whole.clone());
        *broken.last_mut().unwrap() ^= 1;
        for wrong in [cut, &broken, b"a message", &[&whole[..], b"more"].concat()] {
            assert!(matches!(Encoding::Gzip.decompress(wrong, 1000), Err(CallError::NoRequest(_))), "{wrong:?}");
        }
        let flagged = Encoding::Identity.decompress(&whole, 1000);
        assert!(matches!(flagged, Err(CallError::CompressedWithoutEncoding)));
    }
}

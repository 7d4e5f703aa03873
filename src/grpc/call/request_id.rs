//! The id of a call: the caller's if it is one that we can repeat safely, else one of ours. It goes back with every answer
//! and into the log.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that brings it and takes it back.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is repeated.
const LONGEST: usize = 64;

/// The id of one call. Ours become a header only once there is an answer, so that they are not kept twice.
#[derive(Debug)]
pub(super) enum RequestId {
    /// 1 to 64 of `[A-Za-z0-9._-]`.
    Given(HeaderValue),
    /// 32 random hexadecimal digits.
    New([u8; 32]),
}

impl RequestId {
    /// The one that a request brought, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).filter(|value| is_legal(value.as_bytes()));
        given.map_or_else(Self::new, |value| Self::Given(value.clone()))
    }

    fn new() -> Self {
        let mut random = fastrand::u128(..);
        Self::New(std::array::from_fn(|_| {
            let digit = b"0123456789abcdef"[(random & 0xf) as usize];
            random >>= 4;
            digit
        }))
    }

    /// As it goes back.
    pub(super) fn header(&self) -> HeaderValue {
        match self {
            Self::Given(value) => value.clone(),
            Self::New(digits) => {
                let mut id = HeaderValue::from_bytes(digits).unwrap_or_else(|_| HeaderValue::from_static("-"));
                // It comes once and never again, so it is not to push what does out of the table of indexed headers
                // (RFC 7541 §6.2.3).
                id.set_sensitive(true);
                id
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Given(value) => value.to_str().ok(),
            Self::New(digits) => str::from_utf8(digits).ok(),
        };
        f.write_str(text.unwrap_or("?"))
    }
}

fn is_legal(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8]) -> RequestId {
        RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(value).unwrap())]))
    }

    #[test]
    fn a_legal_id_is_kept_and_any_other_replaced() {
        for legal in [&b"a"[..], b"A.z_0-9", &[b'x'; 64]] {
            assert_eq!(of(legal).header(), legal);
            assert_eq!(of(legal).to_string().as_bytes(), legal);
        }
        for illegal in [&b""[..], b"a b", b"a/b", b"\xff", &[b'x'; 65]] {
            assert!(matches!(of(illegal), RequestId::New(_)), "{illegal:?}");
        }
    }

    #[test]
    fn new_ids_are_digits_and_differ() {
        let (one, other) = (RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
        assert_eq!(one.header().to_str().unwrap(), one.to_string());
        assert_eq!(one.to_string().len(), 32);
        assert!(one.to_string().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(one.to_string(), other.to_string());
    }
}

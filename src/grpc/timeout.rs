//! The `grpc-timeout` header: at most eight digits and a unit ("gRPC over HTTP2", Timeout).

use std::time::Duration;

/// Why a `grpc-timeout` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 8 digits followed by one of H, M, S, m, u, n")]
pub(super) struct MalformedTimeout;

const MAX_DIGITS: usize = 8;

/// Reads a `grpc-timeout` value.
pub(super) fn parse(value: &[u8]) -> Result<Duration, MalformedTimeout> {
    let (unit, digits) = value.split_last().ok_or(MalformedTimeout)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedTimeout);
    }
    let amount = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(MalformedTimeout),
    }
}

impl crate::fuzzing::Door {
    /// [`parse`]. `None`: malformed.
    pub fn timeout(value: &[u8]) -> Option<Duration> {
        parse(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood() {
        let cases: [(&str, Duration); 8] = [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_hours(99_999_999)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in ["", "S", "1", "-1S", "+1S", "5x", "123456789S", "1.5S", " 1S", "1S ", "1s", "１S", "\u{0}S"] {
            assert_eq!(parse(text.as_bytes()), Err(MalformedTimeout), "{text:?}");
        }
    }
}

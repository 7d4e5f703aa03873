//! `traceparent`: what a caller says of the trace that its call belongs to (W3C Trace Context, §3.2).
//!
//! Pure, and allocates nothing.

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `version-trace_id-parent_id-flags`, in lower-case hexadecimal.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
/// Never a version.
const NO_VERSION: u128 = 0xff;
const SAMPLED: u8 = 1;

/// A caller's span, of which the call is to be a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traceparent {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    /// Whether the caller's own span is recorded.
    pub(super) sampled: bool,
}

impl Traceparent {
    /// What the headers say, if they say it once and well. Else the call begins a trace of its own, as the specification
    /// wants it.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            (None | Some(_), _) => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let (version, trace_id) = (number(&known[..2])?, number(&known[3..35])?);
        let (span_id, flags) = (number(&known[36..52])?, number(&known[53..])?);
        let dashes = [2, 35, 52].into_iter().all(|at| known[at] == b'-');
        // Later versions may add to the end.
        let ends_well = rest.is_empty() || (version > 0 && rest[0] == b'-');
        let (span_id, flags) = (u64::try_from(span_id).ok()?, u8::try_from(flags).ok()?);
        let is_legal = dashes && ends_well && version != NO_VERSION && trace_id != 0 && span_id != 0;
        is_legal.then_some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }
}

/// Lower-case hexadecimal digits, at most 32.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parse(text: &str) -> Option<Traceparent> {
        Traceparent::parse(text.as_bytes())
    }

    #[test]
    fn the_specifications_examples_are_understood() {
        let parent = |sampled| {
            let (trace_id, span_id) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
            Some(Traceparent { trace_id, span_id, sampled })
        };
        assert_eq!(parse(&format!("00-{TRACE}-00f067aa0ba902b7-01")), parent(true));
        assert_eq!(parse(&format!("00-{TRACE}-00f067aa0ba902b7-00")), parent(false));
        // Other flags are for other people.
        assert_eq!(parse(&format!("00-{TRACE}-00f067aa0ba902b7-02")), parent(false));
        assert_eq!(parse(&format!("00-{TRACE}-00f067aa0ba902b7-ff")), parent(true));
        // What a later version adds is passed over.
        assert_eq!(parse(&format!("01-{TRACE}-00f067aa0ba902b7-01-more")), parent(true));
        assert_eq!(parse(&format!("cc-{TRACE}-00f067aa0ba902b7-01")), parent(true));
    }

    #[test]
    fn what_is_not_one_is_none() {
        let span = "00f067aa0ba902b7";
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            format!("00-{TRACE}-{span}"),
            format!("00-{TRACE}-{span}-01-more"),
            format!("00-{TRACE}-{span}-01-"),
            format!("01-{TRACE}-{span}-01more"),
            format!("ff-{TRACE}-{span}-01"),
            format!("00-{upper}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00_{TRACE}-{span}-01"),
            format!("0g-{TRACE}-{span}-01"),
            format!("00-{TRACE}-{span}-0"),
            format!(" 00-{TRACE}-{span}-01"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_of_them_are_none() {
        let value = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        assert_eq!(Traceparent::of(&headers), None);
        headers.append(TRACEPARENT, value.parse().unwrap());
        assert!(Traceparent::of(&headers).is_some());
        headers.append(TRACEPARENT, value.parse().unwrap());
        assert_eq!(Traceparent::of(&headers), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, cut in 0_usize..60) {
            let _ = Traceparent::parse(&bytes);
            let whole = format!("00-{TRACE}-00f067aa0ba902b7-01");
            let mut mixed = whole.into_bytes();
            mixed.splice(cut.min(mixed.len()).., bytes);
            let _ = Traceparent::parse(&mixed);
        }

        #[test]
        fn what_is_written_is_read(trace_id in 1_u128.., span_id in 1_u64.., sampled: bool) {
            let text = format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(sampled));
            prop_assert_eq!(parse(&text), Some(Traceparent { trace_id, span_id, sampled }));
        }
    }
}

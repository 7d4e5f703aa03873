//! Texts that become values, and the problems found on the way.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// A year: longer than anything here makes sense, and far from any overflow.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// More connections, calls or fetches than any one process can have; and far from what semaphores cannot count.
const MOST: u32 = 1_000_000;

/// Each reader notes a problem and gives some value, so that reading goes on to the next problem.
impl Problems {
    pub(super) fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A duration above zero.
    pub(super) fn duration(&mut self, flag: &str, text: &str) -> Duration {
        let duration = self.duration_or_none(flag, text);
        if duration.is_zero() && self.0.last().is_none_or(|last| !last.starts_with(flag)) {
            self.add(format!("{flag}: must be above zero; got {text:?}"));
        }
        duration
    }

    /// A duration; zero is allowed.
    pub(super) fn duration_or_none(&mut self, flag: &str, text: &str) -> Duration {
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => duration,
            Ok(_) => {
                self.add(format!("{flag}: must be at most a year; got {text:?}"));
                Duration::ZERO
            }
            Err(_) => {
                self.add(format!("{flag}: must be a number with a unit, such as 500ms, 30s or 5m; got {text:?}"));
                Duration::ZERO
            }
        }
    }

    /// A whole number from 1 to [`MOST`].
    pub(super) fn count<N: TryFrom<u32> + From<u8>>(&mut self, flag: &str, text: &str) -> N {
        self.number(flag, text, 1)
    }

    /// A whole number from 0 to [`MOST`].
    pub(super) fn count_or_none<N: TryFrom<u32> + From<u8>>(&mut self, flag: &str, text: &str) -> N {
        self.number(flag, text, 0)
    }

    fn number<N: TryFrom<u32> + From<u8>>(&mut self, flag: &str, text: &str, least: u32) -> N {
        N::try_from(self.count_within(flag, text, least..=MOST)).unwrap_or_else(|_| N::from(1))
    }

    /// A whole number in this range.
    pub(super) fn count_within(&mut self, flag: &str, text: &str, range: RangeInclusive<u32>) -> u32 {
        text.parse().ok().filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.add(format!("{flag}: must be a whole number from {} to {}; got {text:?}", range.start(), range.end()));
            *range.start()
        })
    }

    /// A size above zero, with a unit.
    pub(super) fn bytes(&mut self, flag: &str, text: &str) -> u64 {
        parse_bytes(text).filter(|bytes| *bytes > 0).unwrap_or_else(|| {
            self.add(format!(
                "{flag}: must be a whole number above zero with a unit of B, KiB, MiB or GiB; got {text:?}"
            ));
            1
        })
    }

    /// A size in this range of bytes, with a unit.
    pub(super) fn size_within<N: TryFrom<u32> + From<u8>>(
        &mut self,
        flag: &str,
        text: &str,
        range: RangeInclusive<u32>,
    ) -> N {
        let size = parse_bytes(text).and_then(|bytes| u32::try_from(bytes).ok()).filter(|size| range.contains(size));
        size.and_then(|size| N::try_from(size).ok()).unwrap_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.add(format!("{flag}: must be {least}B to {most}B, with a unit of B, KiB, MiB or GiB; got {text:?}"));
            N::from(1)
        })
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, flag: &str, text: &str) -> bool {
        // AWS's SDKs take any case.
        text.to_ascii_lowercase().parse().unwrap_or_else(|_| {
            self.add(format!("{flag}: must be true or false; got {text:?}"));
            false
        })
    }

    /// Anything that is parsed; `expected` says what.
    pub(super) fn parsed<T: FromStr>(&mut self, flag: &str, text: &str, expected: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.add(format!("{flag}: must be {expected}; got {text:?}"));
        }
        parsed
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_known_unit() {
        assert_eq!(parse_bytes("128MiB"), Some(128 << 20));
        assert_eq!(parse_bytes("1B"), Some(1));
        assert_eq!(parse_bytes("2GiB"), Some(2 << 30));
        for text in ["128", "MiB", "1MB", "-1MiB", "1 MiB", "1.5MiB", "99999999999999999999B", "99999999999GiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}

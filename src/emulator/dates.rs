//! The three ways in which Glacier writes a date, all in UTC.
//!
//! Written by hand rather than with a date library's format strings: each is one line, and the emulator must not share
//! a mistake with the gateway's parser.

use std::time::SystemTime;

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// As in a job description: `2012-03-20T17:03:43.221Z`, milliseconds cut, not rounded, so that no date is early.
pub(crate) fn description_date(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, milli) = at.to_hms_milli();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", u8::from(month))
}

/// As in the `Date` header: `Tue, 20 Mar 2012 17:03:43 GMT`.
pub(crate) fn http_date(at: OffsetDateTime) -> String {
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (hour, minute, second) = at.to_hms();
    let (day, year) = (at.day(), at.year());
    format!("{weekday:.3}, {day:02} {month:.3} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// As in `x-amz-date`: `20120320T170343Z`.
pub(crate) fn signature_date(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}{:02}{day:02}T{hour:02}{minute:02}{second:02}Z", u8::from(month))
}

/// Reads an `x-amz-date`.
pub(crate) fn parse_signature_date(text: &str) -> Option<OffsetDateTime> {
    let shape = text.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    if text.len() != 16 || !shape {
        return None;
    }
    let two = |at: usize| text[at..at + 2].parse::<u8>().ok();
    let month = Month::try_from(two(4)?).ok()?;
    let date = Date::from_calendar_date(text[..4].parse().ok()?, month, two(6)?).ok()?;
    let time = Time::from_hms(two(9)?, two(11)?, two(13)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn spring() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_332_263_023_221_999)
    }

    #[test]
    fn a_description_has_milliseconds_and_never_rounds_up() {
        assert_eq!(description_date(spring()), "2012-03-20T17:03:43.221Z");
        assert_eq!(description_date(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_header_has_the_form_of_rfc_9110() {
        assert_eq!(http_date(spring().into()), "Tue, 20 Mar 2012 17:03:43 GMT");
    }

    #[test]
    fn a_signature_date_is_read_back() {
        let at = parse_signature_date("20120320T170343Z").unwrap();
        assert_eq!(signature_date(at), "20120320T170343Z");
        for wrong in ["", "20120320", "20121320T170343Z", "20120320T250343Z", "20120320T170343+", "2012032éT170343Z"] {
            assert_eq!(parse_signature_date(wrong), None, "{wrong}");
        }
    }
}

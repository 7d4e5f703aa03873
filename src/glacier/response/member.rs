//! Reading the members of a JSON object into typed values without losing any.
//!
//! A *member* is taken out of its object once, by Glacier's name and with the type that the schema wants. What does not
//! fit goes to [`Unrecognized`] under the member's dotted path.

use std::collections::HashMap;

use prost_types::Timestamp;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Values that the schema cannot hold, as text, by their path.
pub(super) type Unrecognized = HashMap<String, String>;

/// 0001-01-01T00:00:00Z, the first second of a protobuf timestamp.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last.
const LAST_SECOND: i64 = 253_402_300_799;

/// A JSON object whose members are being taken.
pub(super) struct Members {
    members: Map<String, Value>,
    /// Where the object is: empty for the document, else `OutputLocation.S3`.
    path: String,
}

impl Members {
    /// The document's own members.
    pub(super) fn of_document(members: Map<String, Value>) -> Self {
        Self { members, path: String::new() }
    }

    /// Whether none of `names` is there with a value.
    pub(super) fn has_none_of(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.members.get(*name).is_none_or(Value::is_null))
    }

    /// A text.
    pub(super) fn string(&mut self, name: &str, lost: &mut Unrecognized) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => self.lose(name, other, lost),
        }
    }

    /// A whole number. `1.0` is none: no reader of Glacier's API was ever promised one.
    pub(super) fn integer(&mut self, name: &str, lost: &mut Unrecognized) -> Option<i64> {
        let value = self.take(name)?;
        match value.as_i64() {
            Some(number) => Some(number),
            None => self.lose(name, value, lost),
        }
    }

    /// True or false.
    pub(super) fn boolean(&mut self, name: &str, lost: &mut Unrecognized) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(truth) => Some(truth),
            other => self.lose(name, other, lost),
        }
    }

    /// An RFC 3339 date with any number of fraction digits.
    pub(super) fn date(&mut self, name: &str, lost: &mut Unrecognized) -> Option<Timestamp> {
        let value = self.take(name)?;
        match value.as_str().and_then(parse_date) {
            Some(date) => Some(date),
            None => self.lose(name, value, lost),
        }
    }

    /// One of a closed set, as the number that protobuf keeps; 0 is "unspecified".
    pub(super) fn choice<E: Into<i32>>(
        &mut self,
        name: &str,
        known: impl Fn(&str) -> Option<E>,
        lost: &mut Unrecognized,
    ) -> i32 {
        let Some(value) = self.take(name) else { return 0 };
        match value.as_str().and_then(known) {
            Some(choice) => choice.into(),
            None => self.lose(name, value, lost).unwrap_or_default(),
        }
    }

    /// A nested object.
    pub(super) fn object(&mut self, name: &str, lost: &mut Unrecognized) -> Option<Self> {
        match self.take(name)? {
            Value::Object(members) => Some(Self { members, path: self.path_of(name) }),
            other => self.lose(name, other, lost),
        }
    }

    /// A list of objects. An element that is none is kept under its index; `null` is no element.
    pub(super) fn objects(&mut self, name: &str, lost: &mut Unrecognized) -> Vec<Self> {
        let elements = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(elements)) => elements,
            Some(other) => return self.lose(name, other, lost).unwrap_or_default(),
        };
        let mut objects = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(name));
            match element {
                Value::Null => {}
                Value::Object(members) => objects.push(Self { members, path }),
                other => keep(path, other, lost),
            }
        }
        objects
    }

    /// A map of texts. A value that is none is kept under its key; `null` is no value.
    pub(super) fn texts(&mut self, name: &str, lost: &mut Unrecognized) -> HashMap<String, String> {
        let Some(Self { members, path }) = self.object(name, lost) else { return HashMap::new() };
        let mut texts = HashMap::with_capacity(members.len());
        for (key, value) in members {
            match value {
                Value::Null => {}
                Value::String(text) => {
                    texts.insert(key, text);
                }
                other => keep(format!("{path}.{key}"), other, lost),
            }
        }
        texts
    }

    /// `null` and missing alike are nothing.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    fn lose<T>(&self, name: &str, value: Value, lost: &mut Unrecognized) -> Option<T> {
        keep(self.path_of(name), value, lost);
        None
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// A text as it is, anything else as JSON. (A number beyond 64 bits has lost digits already: the parser
/// holds it as a float.)
fn keep(path: String, value: Value, lost: &mut Unrecognized) {
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    lost.insert(path, text);
}

fn parse_date(text: &str) -> Option<Timestamp> {
    // The parser takes any character between date and time; a date of Glacier's has a `T`.
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = date.unix_timestamp();
    let nanos = i32::try_from(date.nanosecond()).ok()?;
    (FIRST_SECOND..=LAST_SECOND).contains(&seconds).then_some(Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_may_have_any_number_of_fraction_digits_and_an_offset() {
        for (text, seconds, nanos) in [
            ("2012-03-20T17:03:43.221Z", 1_332_263_023, 221_000_000),
            ("2012-03-20T17:03:43Z", 1_332_263_023, 0),
            ("2012-03-20T17:03:43.2Z", 1_332_263_023, 200_000_000),
            ("2012-03-20T17:03:43.2210000009Z", 1_332_263_023, 221_000_000),
            ("2012-03-20T18:03:43.221+01:00", 1_332_263_023, 221_000_000),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1969-12-31T23:59:59.5Z", -1, 500_000_000),
            ("0001-01-01T00:00:00Z", FIRST_SECOND, 0),
            ("9999-12-31T23:59:59.999Z", LAST_SECOND, 999_000_000),
        ] {
            assert_eq!(parse_date(text), Some(Timestamp { seconds, nanos }), "{text}");
        }
    }

    #[test]
    fn what_protobuf_or_the_calendar_cannot_hold_is_no_date() {
        for text in [
            "",
            "yesterday",
            "2012-03-20",
            "2012-03-20 17:03:43Z",
            "2012-02-30T00:00:00Z",
            "2012-03-20T25:00:00Z",
            "2012-03-20T17:03:43",
            "2012-03-20T17:03:43.Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "12012-03-20T17:03:43Z",
            "-2012-03-20T17:03:43Z",
            "1332263023",
            "2012-03-2äT17:03:43Z",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}

//! The question in a `DescribeJobRequest`: decoded, validated.
//!
//! An ordinary request is read in place: three short texts and a duration, each at most once, in the message as it came.
//! [`read_in_place`] knows no more than that and gives up on anything else; then prost decides what it is. A property test
//! holds that both always agree.

use std::{borrow::Cow, str, time::Duration};

use prost::Message as _;

use super::status::CallError;
use crate::{
    job::{InvalidField, JobKey},
    proto::v1::DescribeJobRequest,
};

/// What a caller wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// About which job.
    pub(super) key: JobKey,
    /// The oldest answer that is accepted; `None` leaves that to policy.
    pub(super) max_age: Option<Duration>,
}

impl Question {
    /// Reads an encoded `DescribeJobRequest`.
    pub(super) fn read(message: &[u8]) -> Result<Self, CallError<'static>> {
        let fields = match read_in_place(message) {
            Some(fields) => fields,
            // prost's own words name the field at fault; they hold nothing of its content.
            None => DescribeJobRequest::decode(message)
                .map_err(|error| CallError::NoRequest(format!("not a DescribeJobRequest: {error}")))?
                .into(),
        };
        fields.validate().map_err(CallError::Invalid)
    }
}

/// The fields of a request.
#[derive(Debug, Default, PartialEq)]
struct Fields<'m> {
    account_id: Cow<'m, str>,
    vault_name: Cow<'m, str>,
    job_id: Cow<'m, str>,
    max_age: Option<prost_types::Duration>,
}

impl From<DescribeJobRequest> for Fields<'_> {
    fn from(request: DescribeJobRequest) -> Self {
        let DescribeJobRequest { account_id, vault_name, job_id, max_age } = request;
        Self { account_id: account_id.into(), vault_name: vault_name.into(), job_id: job_id.into(), max_age }
    }
}

impl Fields<'_> {
    /// As types that cannot be wrong, or every field that is.
    fn validate(&self) -> Result<Question, Vec<InvalidField>> {
        let key = JobKey::parse(&self.account_id, &self.vault_name, &self.job_id);
        let max_age = self.max_age.map(Duration::try_from).transpose().map_err(|_| InvalidField {
            field: "max_age",
            description: "must be zero or a positive duration".to_owned(),
        });
        match (key, max_age) {
            (Ok(key), Ok(max_age)) => Ok(Question { key, max_age }),
            (key, max_age) => {
                let mut fields = key.err().unwrap_or_default();
                fields.extend(max_age.err());
                Err(fields)
            }
        }
    }
}

/// The tags of the four fields, all of them length-delimited (wire type 2).
const ACCOUNT_ID: u8 = 1 << 3 | 2;
const VAULT_NAME: u8 = 2 << 3 | 2;
const JOB_ID: u8 = 3 << 3 | 2;
const MAX_AGE: u8 = 4 << 3 | 2;

/// The fields of an ordinary request; `None` for one that is not, whether it is legal or not.
fn read_in_place(mut rest: &[u8]) -> Option<Fields<'_>> {
    let (mut account_id, mut vault_name, mut job_id, mut max_age) = (None, None, None, None);
    while let [tag, length, after @ ..] = rest {
        // Lengths from 128 on have a second byte: a long vault's name or job id.
        let (length, after) = match (length, after) {
            (0..0x80, _) => (usize::from(*length), after),
            (_, [high @ 1..0x80, after @ ..]) => (usize::from(length & 0x7f) | usize::from(*high) << 7, after),
            _ => return None,
        };
        let (value, next) = after.split_at_checked(length)?;
        let text = || str::from_utf8(value).ok();
        let first_time = match *tag {
            ACCOUNT_ID => account_id.replace(text()?).is_none(),
            VAULT_NAME => vault_name.replace(text()?).is_none(),
            JOB_ID => job_id.replace(text()?).is_none(),
            MAX_AGE => max_age.replace(prost_types::Duration::decode(value).ok()?).is_none(),
            _ => return None,
        };
        if !first_time {
            return None;
        }
        rest = next;
    }
    rest.is_empty().then(|| Fields {
        account_id: account_id.unwrap_or_default().into(),
        vault_name: vault_name.unwrap_or_default().into(),
        job_id: job_id.unwrap_or_default().into(),
        max_age,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(account: &str, vault: &str, job: &str, seconds: Option<i64>) -> Fields<'static> {
        request(account, vault, job, seconds).into()
    }

    fn request(account: &str, vault: &str, job: &str, seconds: Option<i64>) -> DescribeJobRequest {
        DescribeJobRequest {
            account_id: account.into(),
            vault_name: vault.into(),
            job_id: job.into(),
            max_age: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        let bad = fields("1", "..", "", Some(-1)).validate().unwrap_err();
        assert_eq!(bad.iter().map(|f| f.field).collect::<Vec<_>>(), ["account_id", "vault_name", "job_id", "max_age"]);
        let bad = fields("", "v", "j", Some(-1)).validate().unwrap_err();
        assert_eq!(bad.iter().map(|f| f.field).collect::<Vec<_>>(), ["max_age"]);
    }

    #[test]
    fn an_absent_max_age_is_not_a_zero_one() {
        assert_eq!(fields("", "v", "j", None).validate().unwrap().max_age, None);
        assert_eq!(fields("", "v", "j", Some(0)).validate().unwrap().max_age, Some(Duration::ZERO));
    }

    #[test]
    fn ordinary_requests_are_read_in_place_up_to_the_longest_names() {
        for request in [
            request("", "", "", None),
            request("123456789012", "photos", &"j".repeat(92), Some(5)),
            request("-", &"v".repeat(255), &"j".repeat(256), Some(0)),
        ] {
            let message = request.encode_to_vec();
            assert_eq!(read_in_place(&message), Some(request.into()));
        }
    }

    #[test]
    fn what_is_not_ordinary_is_left_to_prost() {
        // A field twice (the last counts), an unknown field, a group, no UTF-8, a length in more bytes than it needs.
        let cases: [&[u8]; 5] =
            [b"\x12\x01a\x12\x01b", b"\x28\x01\x12\x01a", b"\x2b\x2c", b"\x12\x01\xff", b"\x12\x81\x00a"];
        for message in cases {
            assert_eq!(read_in_place(message), None, "{message:?}");
        }
        assert_eq!(Question::read(b"\x12\x01a\x12\x01b\x1a\x01j").unwrap().key.as_str(), "-/b/j");
        assert!(matches!(Question::read(b"\x12\x01\xff"), Err(CallError::NoRequest(_))));
    }

    proptest! {
        #[test]
        fn whatever_is_read_in_place_prost_reads_alike(
            mut message in (".{0,20}", ".{0,300}", ".{0,300}", prop::option::of(any::<i64>()))
                .prop_map(|(a, v, j, s)| request(&a, &v, &j, s).encode_to_vec()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            for (at, byte) in changes {
                if !message.is_empty() {
                    let at = at.index(message.len());
                    message[at] = byte;
                }
            }
            if is_cut && !message.is_empty() {
                message.truncate(cut.index(message.len()));
            }
            if let Some(fields) = read_in_place(&message) {
                prop_assert_eq!(Some(fields), DescribeJobRequest::decode(message.as_slice()).ok().map(Fields::from));
            }
        }
    }
}

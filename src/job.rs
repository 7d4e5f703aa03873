//! What names a job, and the few facts about one that policy needs.
//!
//! A [`JobKey`] exists only if its parts are legal, so everything behind it (cache, signing, URL) can trust it: it has
//! exactly three path segments, none of them empty, `.` or `..`, all of unreserved characters.

use std::{
    fmt, str,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;

use crate::proto::v1::{GlacierJobDescription, StatusCode, Tier};

/// The account of the signing credentials, in Glacier's spelling.
pub const OWN_ACCOUNT: &str = "-";
/// Digits of an AWS account id.
const ACCOUNT_DIGITS: usize = 12;
/// Longest vault name (Glacier Developer Guide, "Create Vault").
const VAULT_NAME_MAX: usize = 255;
/// Longest job id that we accept. Real ones have 92 characters; the limit is not documented.
const JOB_ID_MAX: usize = 256;

/// A job's full name: account, vault and job id, all legal. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// `account/vault/job`; no part can hold a slash, so the text is unambiguous. One allocation, since every call makes a
    /// key.
    text: Arc<str>,
    /// Which account [`OWN_ACCOUNT`] stands for; always the default one where an account is named.
    identity: Identity,
}

/// Which account [`OWN_ACCOUNT`] stands for at a time. Another value means: perhaps another account, so that what is known
/// about keys of the old identity says nothing about those of the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Identity(pub u32);

/// A request field that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// The field's name in `DescribeJobRequest`.
    pub field: &'static str,
    /// What is wrong, and what is accepted.
    pub description: String,
}

impl JobKey {
    /// Validates the three parts. An empty account means [`OWN_ACCOUNT`]. Reports every bad field, not the first only.
    pub fn parse(account_id: &str, vault_name: &str, job_id: &str) -> Result<Self, Vec<InvalidField>> {
        let account_id = if account_id.is_empty() { OWN_ACCOUNT } else { account_id };
        let problems: Vec<_> =
            [check_account(account_id), check_vault(vault_name), check_job(job_id)].into_iter().flatten().collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { text: joined([account_id, vault_name, job_id]), identity: Identity::default() })
    }

    /// The key of the same name while [`OWN_ACCOUNT`] stands for `identity`.
    #[must_use]
    pub fn under(&self, identity: Identity) -> Self {
        // An account's number does not begin like this, and every call asks.
        let is_own = self.text.starts_with(OWN_ACCOUNT);
        let identity = if is_own { identity } else { Identity::default() };
        Self { text: Arc::clone(&self.text), identity }
    }

    /// `-`, or 12 digits.
    pub fn account_id(&self) -> &str {
        self.part(0)
    }

    /// The vault's name.
    pub fn vault_name(&self) -> &str {
        self.part(1)
    }

    /// The job's id.
    pub fn job_id(&self) -> &str {
        self.part(2)
    }

    /// `account/vault/job`, for logs.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn part(&self, index: usize) -> &str {
        self.text.split('/').nth(index).unwrap_or_default()
    }
}

/// Room for the longest key.
const LONGEST_KEY: usize = ACCOUNT_DIGITS + 1 + VAULT_NAME_MAX + 1 + JOB_ID_MAX;

/// The parts of a key with slashes between them, with one allocation.
fn joined(parts: [&str; 3]) -> Arc<str> {
    let mut text = [b'/'; LONGEST_KEY];
    let mut end = 0;
    for part in parts {
        text[end..][..part.len()].copy_from_slice(part.as_bytes());
        end += part.len() + 1;
    }
    // Legal parts are ASCII.
    str::from_utf8(&text[..end - 1]).unwrap_or_default().into()
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether this is [`OWN_ACCOUNT`] or a number of an account.
pub fn is_account(account: &str) -> bool {
    account == OWN_ACCOUNT || (account.len() == ACCOUNT_DIGITS && account.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a vault can have this name.
pub fn is_vault(vault: &str) -> bool {
    // `.` and `..` fit the documented alphabet but are path segments: they would be signed as another path.
    !matches!(vault, "" | "." | "..") && is_beginning_of_vault(vault)
}

/// Whether a vault's name can begin with this; with nothing, too.
pub fn is_beginning_of_vault(text: &str) -> bool {
    text.len() <= VAULT_NAME_MAX && is_of(&VAULT_ALPHABET, text)
}

/// Which bytes a vault's name may have.
const VAULT_ALPHABET: [bool; 256] = alphabet(b"_.-");
/// Which bytes a job's id may have.
const JOB_ALPHABET: [bool; 256] = alphabet(b"_-");

/// ASCII letters, digits, and `more`. A table, since every call's names are looked at byte by byte.
const fn alphabet(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = u8::MIN;
    while byte < u8::MAX {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < more.len() {
        table[more[index] as usize] = true;
        index += 1;
    }
    table
}

/// Whether a text is made of such bytes only. Without an early end, which would cost a branch per byte.
fn is_of(alphabet: &[bool; 256], text: &str) -> bool {
    text.bytes().fold(true, |legal, byte| legal & alphabet[usize::from(byte)])
}

fn check_account(account: &str) -> Option<InvalidField> {
    (!is_account(account)).then(|| InvalidField {
        field: "account_id",
        description: format!("must be 12 digits, \"-\" or empty; got {}", quoted(account)),
    })
}

fn check_vault(vault: &str) -> Option<InvalidField> {
    (!is_vault(vault)).then(|| InvalidField {
        field: "vault_name",
        description: format!(
            "must be 1 to {VAULT_NAME_MAX} characters of [A-Za-z0-9_.-], except \".\" and \"..\"; got {}",
            quoted(vault)
        ),
    })
}

fn check_job(job: &str) -> Option<InvalidField> {
    // An empty id would turn DescribeJob into ListJobs.
    let legal = (1..=JOB_ID_MAX).contains(&job.len()) && is_of(&JOB_ALPHABET, job);
    (!legal).then(|| InvalidField {
        field: "job_id",
        description: format!("must be 1 to {JOB_ID_MAX} characters of [A-Za-z0-9_-]; got {}", quoted(job)),
    })
}

/// The value as a reader can recognize it: escaped, and cut so that a message stays far below 1 KiB.
fn quoted(value: &str) -> String {
    const SHOWN: usize = 40;
    let length = value.chars().count();
    let head: String = value.chars().take(SHOWN).collect();
    match length {
        0 => "an empty value".to_owned(),
        _ if length > SHOWN => format!("{head:?}… ({length} characters)"),
        _ => format!("{head:?}"),
    }
}

/// What policy needs to know about a description; everything else in it is only passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobFacts {
    /// Glacier's `StatusCode`.
    pub status: StatusCode,
    /// Glacier's `Completed`; `None` when missing.
    pub completed: Option<bool>,
    /// Glacier's `Tier`.
    pub tier: Tier,
    /// Glacier's `CreationDate`.
    pub creation: Option<SystemTime>,
    /// Glacier's `CompletionDate`.
    pub completion: Option<SystemTime>,
    /// Whether the description holds a value that our schema cannot express.
    pub unrecognized: bool,
}

impl JobFacts {
    /// Reads the facts out of a description.
    pub fn of(job: &GlacierJobDescription) -> Self {
        Self {
            status: job.status_code(),
            completed: job.completed,
            tier: job.tier(),
            creation: job.creation_date.and_then(wall_time),
            completion: job.completion_date.and_then(wall_time),
            unrecognized: !job.unrecognized_values.is_empty(),
        }
    }
}

/// The earliest time at which Glacier may forget a job: "at least 24 hours" after completion (Developer Guide).
pub const GUARANTEED_LIFE_AFTER_COMPLETION: Duration = Duration::from_hours(24);

fn wall_time(timestamp: Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(timestamp).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad_fields(account: &str, vault: &str, job: &str) -> Vec<&'static str> {
        JobKey::parse(account, vault, job).map_or_else(|e| e.iter().map(|f| f.field).collect(), |_| vec![])
    }

    #[test]
    fn legal_names_are_taken_apart_again() {
        let key = JobKey::parse("123456789012", "my.vault_1-x", "-abc_DEF").unwrap();
        assert_eq!((key.account_id(), key.vault_name(), key.job_id()), ("123456789012", "my.vault_1-x", "-abc_DEF"));
        assert_eq!(JobKey::parse("", "v", "j"), JobKey::parse("-", "v", "j"));
    }

    #[test]
    fn each_illegal_part_is_reported_under_its_own_name() {
        for account in ["12345678901", "1234567890123", "12345678901x", "--", "１２３４５６７８９０１２"] {
            assert_eq!(bad_fields(account, "v", "j"), ["account_id"], "{account}");
        }
        let long = "v".repeat(256);
        for vault in ["", ".", "..", "a/b", "a b", "ä", "%2e", long.as_str()] {
            assert_eq!(bad_fields("-", vault, "j"), ["vault_name"], "{vault}");
        }
        let long = "j".repeat(257);
        for job in ["", "a.b", "a/b", "a?limit=1", "\0", long.as_str()] {
            assert_eq!(bad_fields("-", "v", job), ["job_id"], "{job}");
        }
        assert_eq!(bad_fields("x", "", ""), ["account_id", "vault_name", "job_id"]);
    }

    #[test]
    fn the_longest_names_are_legal() {
        let (vault, job) = ("v".repeat(255), "j".repeat(256));
        let key = JobKey::parse("123456789012", &vault, &job).unwrap();
        assert_eq!((key.account_id(), key.vault_name(), key.job_id()), ("123456789012", &*vault, &*job));
        assert!(JobKey::parse("-", "...", "-").is_ok());
    }

    #[test]
    fn only_the_own_account_has_an_identity() {
        let (own, named) = (JobKey::parse("-", "v", "j").unwrap(), JobKey::parse("123456789012", "v", "j").unwrap());
        assert_ne!(own.under(Identity(1)), own);
        assert_eq!(own.under(Identity(1)).under(Identity(0)), own);
        assert_eq!(named.under(Identity(1)), named);
    }

    #[test]
    fn a_huge_bad_value_is_cut_in_the_message() {
        let problems = JobKey::parse("-", &"/".repeat(9000), "j").unwrap_err();
        assert!(problems[0].description.len() < 300, "{}", problems[0].description.len());
        assert!(problems[0].description.contains("(9000 characters)"));
    }
}

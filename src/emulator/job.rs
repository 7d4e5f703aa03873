//! A job as the emulator holds it: a description, and the life that changes it.
//!
//! An [`EmulatedJob`] is a plan; the store puts it on the clock ([`PlacedJob`]). The description is a JSON document
//! rather than a struct, because the emulator must be able to say what no struct of ours expects: unknown members, wrong
//! types, missing members. The builders write the members and the nulls that Glacier writes for that kind of job.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::{
    clock::{EmulatedClock, Progress},
    dates::description_date,
};

/// Every job id seen in public has this length.
const JOB_ID_LENGTH: usize = 92;
/// The length of Glacier's archive ids.
const ARCHIVE_ID_LENGTH: usize = 138;
/// What a finished inventory weighs, in bytes: the order of a vault with some hundred archives.
const INVENTORY_SIZE: u64 = 61_384;
/// How long Glacier promises to remember a completed job.
pub(crate) const REMEMBERED: Duration = Duration::from_hours(24);

/// How fast a job was ordered to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// One to five minutes.
    Expedited,
    /// Three to five hours.
    Standard,
    /// Five to twelve hours.
    Bulk,
}

impl Tier {
    /// In Glacier's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expedited => "Expedited",
            Self::Standard => "Standard",
            Self::Bulk => "Bulk",
        }
    }

    /// A duration from the middle of what this tier usually takes.
    pub fn usual_duration(self) -> Duration {
        match self {
            Self::Expedited => Duration::from_mins(3),
            Self::Standard => Duration::from_hours(4),
            Self::Bulk => Duration::from_hours(8),
        }
    }
}

/// A job to be put into the [`Store`](super::Store).
#[derive(Debug, Clone)]
pub struct EmulatedJob {
    /// The id under which the store answers for it. Kept apart from the document: a document may name another job.
    id: String,
    document: Value,
    /// `None` for a document that is told verbatim, for ever.
    life: Option<Life>,
    /// Applied last, in order; `None` removes the member.
    changes: Vec<(String, Option<Value>)>,
}

#[derive(Debug, Clone)]
struct Life {
    lasting: Duration,
    /// The status message of a job that ends in `Failed`.
    failure: Option<String>,
    completed_ago: Option<Duration>,
    remembered: Option<Duration>,
    /// Appears with success.
    inventory_size: Option<u64>,
}

impl Life {
    fn lasting(lasting: Duration) -> Self {
        Self { lasting, failure: None, completed_ago: None, remembered: None, inventory_size: None }
    }
}

impl EmulatedJob {
    /// An `ArchiveRetrieval` of a whole archive, which lasts what its tier usually lasts.
    pub fn archive(tier: Tier) -> Self {
        let size: u64 = fastrand::u64(1 << 20..1 << 34);
        let hash = tree_hash();
        let document = json!({
            "Action": "ArchiveRetrieval",
            "ArchiveId": identifier(ARCHIVE_ID_LENGTH),
            "ArchiveSHA256TreeHash": hash,
            "ArchiveSizeInBytes": size,
            "InventoryRetrievalParameters": null,
            "InventorySizeInBytes": null,
            "JobDescription": "restore of a nightly backup",
            "RetrievalByteRange": format!("0-{}", size - 1),
            "SHA256TreeHash": hash,
            "SNSTopic": null,
            "Tier": tier.as_str(),
        });
        Self::built(document, Life::lasting(tier.usual_duration()))
    }

    /// An `InventoryRetrieval`, which lasts four hours. Its tier is null.
    pub fn inventory() -> Self {
        let document = json!({
            "Action": "InventoryRetrieval",
            "ArchiveId": null,
            "ArchiveSHA256TreeHash": null,
            "ArchiveSizeInBytes": null,
            "InventoryRetrievalParameters": {
                "EndDate": null, "Format": "JSON", "Limit": null, "Marker": null, "StartDate": null,
            },
            "InventorySizeInBytes": null,
            "JobDescription": null,
            "RetrievalByteRange": null,
            "SHA256TreeHash": null,
            "SNSTopic": null,
            "Tier": null,
        });
        let life = Life { inventory_size: Some(INVENTORY_SIZE), ..Life::lasting(Tier::Standard.usual_duration()) };
        Self::built(document, life)
    }

    /// A `Select` of the Standard tier with every nested member set.
    pub fn select() -> Self {
        let document = json!({
            "Action": "Select",
            "ArchiveId": identifier(ARCHIVE_ID_LENGTH),
            "ArchiveSHA256TreeHash": null,
            "ArchiveSizeInBytes": null,
            "InventoryRetrievalParameters": null,
            "InventorySizeInBytes": null,
            "JobDescription": "orders above one thousand",
            "JobOutputPath": "select-results/orders",
            "OutputLocation": {"S3": {
                "BucketName": "emulated-results",
                "Prefix": "select-results",
                "Encryption": {"EncryptionType": "aws:kms", "KMSKeyId": "emulated-key", "KMSContext": "e30="},
                "CannedACL": "bucket-owner-full-control",
                "AccessControlList": [{
                    "Grantee": {
                        "Type": "CanonicalUser", "DisplayName": "auditor", "URI": null,
                        "ID": "79a59df900b949e5", "EmailAddress": "auditor@example.com",
                    },
                    "Permission": "READ",
                }],
                "Tagging": {"team": "audit"},
                "UserMetadata": {"origin": "emulator"},
                "StorageClass": "STANDARD_IA",
            }},
            "RetrievalByteRange": null,
            "SHA256TreeHash": null,
            "SNSTopic": "arn:aws:sns:us-east-1:123456789012:emulated-topic",
            "SelectParameters": {
                "InputSerialization": {"csv": {
                    "Comments": "#", "FieldDelimiter": ",", "FileHeaderInfo": "USE", "QuoteCharacter": "\"",
                    "QuoteEscapeCharacter": "\"", "RecordDelimiter": "\n",
                }},
                "ExpressionType": "SQL",
                "Expression": "SELECT s._1 FROM archive s WHERE s._2 > 1000",
                "OutputSerialization": {"csv": {
                    "FieldDelimiter": ",", "QuoteCharacter": "\"", "QuoteEscapeCharacter": "\"",
                    "QuoteFields": "ASNEEDED", "RecordDelimiter": "\n",
                }},
            },
            "Tier": Tier::Standard.as_str(),
        });
        Self::built(document, Life::lasting(Tier::Standard.usual_duration()))
    }

    /// A document that is told as it is. It never changes and is remembered for ever, unless it is given a life with
    /// [`lasting`](Self::lasting) and its kin. Its `JobId`, if it is a string, becomes the job's id, else the id is random.
    pub fn from_document(document: Value) -> Self {
        let id = document.get("JobId").and_then(Value::as_str).map_or_else(random_job_id, str::to_owned);
        Self { id, document, life: None, changes: Vec::new() }
    }

    fn built(document: Value, life: Life) -> Self {
        Self { id: random_job_id(), document, life: Some(life), changes: Vec::new() }.identified()
    }

    fn identified(mut self) -> Self {
        set(&mut self.document, "JobId", json!(self.id));
        self
    }

    /// The id under which the store answers for this job.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives the job another id, in the document too.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }.identified()
    }

    /// The job is found under another id than its document names: the answer of a confused server.
    #[must_use]
    pub fn answering_to(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// Sets a top-level member, whatever the job's life says about it.
    #[must_use]
    pub fn with(mut self, member: impl Into<String>, value: impl Into<Value>) -> Self {
        self.changes.push((member.into(), Some(value.into())));
        self
    }

    /// Leaves a top-level member out, whatever the job's life says about it.
    #[must_use]
    pub fn without(mut self, member: impl Into<String>) -> Self {
        self.changes.push((member.into(), None));
        self
    }

    /// How long the job is in progress, on the emulator's clock. Zero: it is completed as soon as it is there.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        self.living(|life| life.lasting = duration)
    }

    /// The job ends in `Failed`, with this status message.
    #[must_use]
    pub fn failing(self, message: impl Into<String>) -> Self {
        self.living(|life| life.failure = Some(message.into()))
    }

    /// The job completed this long ago on the wall clock, after it had lasted its full duration. That time counts
    /// towards its being forgotten.
    #[must_use]
    pub fn already_completed(self, ago: Duration) -> Self {
        self.living(|life| life.completed_ago = Some(ago))
    }

    /// How long after its completion the job is forgotten, on the emulator's clock, instead of
    /// [`Settings::remembered`](super::Settings).
    #[must_use]
    pub fn remembered(self, duration: Duration) -> Self {
        self.living(|life| life.remembered = Some(duration))
    }

    fn living(mut self, change: impl FnOnce(&mut Life)) -> Self {
        change(self.life.get_or_insert_with(|| Life::lasting(Tier::Standard.usual_duration())));
        self
    }

    /// Puts the job on the clock.
    pub(crate) fn placed(self, clock: &EmulatedClock, vault_arn: String, remembered: Duration) -> PlacedJob {
        let (wall, progress) = (clock.wall(), clock.progress());
        let mut created = wall;
        let course = self.life.map(|life| {
            let remembered = life.remembered.unwrap_or(remembered);
            let end = match life.completed_ago {
                None => {
                    let reached = progress.after(life.lasting);
                    End { reached, date: None, forgotten: reached.after(remembered) }
                }
                Some(ago) => {
                    let date = wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
                    created = date.checked_sub(life.lasting).unwrap_or(SystemTime::UNIX_EPOCH);
                    let forgotten = progress.after(remembered.saturating_sub(ago));
                    End { reached: progress, date: Some(date), forgotten }
                }
            };
            Course { end, remembered, failure: life.failure, inventory_size: life.inventory_size, vault_arn }
        });
        PlacedJob { id: self.id, document: self.document, changes: self.changes, created, course }
    }
}

/// A job on the clock.
#[derive(Debug)]
pub(crate) struct PlacedJob {
    pub(crate) id: String,
    document: Value,
    changes: Vec<(String, Option<Value>)>,
    pub(crate) created: SystemTime,
    course: Option<Course>,
}

#[derive(Debug)]
struct Course {
    end: End,
    remembered: Duration,
    failure: Option<String>,
    inventory_size: Option<u64>,
    vault_arn: String,
}

#[derive(Debug)]
struct End {
    reached: Progress,
    /// When that was, if the clock cannot tell.
    date: Option<SystemTime>,
    forgotten: Progress,
}

impl PlacedJob {
    pub(crate) fn is_forgotten(&self, progress: Progress) -> bool {
        self.course.as_ref().is_some_and(|course| course.end.forgotten <= progress)
    }

    /// Ends the job now, if it is in progress.
    pub(crate) fn complete(&mut self, clock: &EmulatedClock, failure: Option<String>) {
        let progress = clock.progress();
        if let Some(course) = &mut self.course
            && course.end.reached > progress
        {
            let forgotten = progress.after(course.remembered);
            course.end = End { reached: progress, date: Some(clock.wall()), forgotten };
            course.failure = failure.or(course.failure.take());
        }
    }

    /// What Glacier would say about the job now.
    pub(crate) fn document(&self, clock: &EmulatedClock) -> Value {
        let mut document = self.document.clone();
        if let Some(course) = &self.course {
            for (member, value) in course.members(self.created, clock) {
                set(&mut document, &member, value);
            }
        }
        for (member, value) in &self.changes {
            match (value, document.as_object_mut()) {
                (Some(value), _) => set(&mut document, member, value.clone()),
                (None, Some(members)) => drop(members.remove(member)),
                (None, None) => {}
            }
        }
        document
    }
}

impl Course {
    fn members(&self, created: SystemTime, clock: &EmulatedClock) -> Map<String, Value> {
        let completed = self.end.reached <= clock.progress();
        let date = self.end.date.or_else(|| clock.date_of(self.end.reached)).filter(|_| completed);
        let (status, message) = match (&self.failure, completed) {
            (_, false) => ("InProgress", "Operation in progress."),
            (None, true) => ("Succeeded", "Succeeded"),
            (Some(message), true) => ("Failed", message.as_str()),
        };
        let mut members = Map::new();
        members.insert("Completed".into(), json!(completed));
        members.insert("CompletionDate".into(), json!(date.map(description_date)));
        members.insert("CreationDate".into(), json!(description_date(created)));
        members.insert("StatusCode".into(), json!(status));
        members.insert("StatusMessage".into(), json!(message));
        members.insert("VaultARN".into(), json!(self.vault_arn));
        if let (Some(size), "Succeeded") = (self.inventory_size, status) {
            members.insert("InventorySizeInBytes".into(), json!(size));
        }
        members
    }
}

/// Sets a member of an object; a document that is no object has no members and stays what it is.
fn set(document: &mut Value, member: &str, value: Value) {
    if let Some(members) = document.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
}

/// A job id of Glacier's form. One in four begins with `-`, far more than in the wild: callers must not take it for a flag.
pub fn random_job_id() -> String {
    let id = identifier(JOB_ID_LENGTH);
    if fastrand::u8(..4) == 0 { format!("-{}", &id[1..]) } else { id }
}

/// Random text of `[A-Za-z0-9_-]`.
pub(crate) fn identifier(length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    (0..length).map(|_| char::from(ALPHABET[fastrand::usize(..64)])).collect()
}

fn tree_hash() -> String {
    hex::encode(std::array::from_fn::<u8, 32, _>(|_| fastrand::u8(..)))
}

//! The jobs that everybody describes: a million of them that differ in the last digits of their ids, in JSON as Glacier
//! writes it, as the message that it must become, and as the gRPC frame of the answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glacier_gateway::proto::v1::{
    Action, DescribeJobRequest, DescribeJobResponse, GlacierJobDescription, StatusCode, Tier,
};
use prost::Message;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::Outcome;

/// The account in every request.
pub const ACCOUNT: &str = "123456789012";
/// The vault of the hits.
pub const VAULT: &str = "photos";
/// Digits at the end of a job id that tell one job from another.
pub const DIGITS: usize = 8;
/// Real job ids have 92 characters.
const ID_START: &str = "HkF9p6o7yjhFx-K3CGl6fuSm6VzW9T7esGQfco8nUXVYwS0jlb5gq1JZ55yHgt5vP54ZShjoQzQVVh7vEXAM";
const ARCHIVE_ID: &str = "NkbByEejwEggmBz2fTHgJrg0XBoDfjP4q6iu87-TjhqG6eGoOY9Z8i1_AUyUsuhPAdTqLHy8pTl5nfCFJmDl2yEZONi5L26Omw12vcs01MNGntHEQL8MBfGlqrEXAMPLEArchiveId";
const TREE_HASH: &str = "9628195fcdbcbbe76cdde456d4646fa7de5f219fb39823836d81f0cc0e18aa67";
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:restores";
const SIZE: i64 = 16_777_216;
/// A Standard retrieval takes some hours.
const TOOK: Duration = Duration::from_hours(4);
/// Glacier keeps a completed job for a day.
const KEPT: Duration = Duration::from_hours(24);
/// The flag and the length before a message.
pub const PREFIX: usize = 5;

/// A job's id.
pub fn id(key: u32) -> String {
    format!("{ID_START}{key:0DIGITS$}")
}

/// The request for a job.
pub fn request(vault: &str, key: u32) -> DescribeJobRequest {
    DescribeJobRequest { account_id: ACCOUNT.to_owned(), vault_name: vault.to_owned(), job_id: id(key), max_age: None }
}

/// The moment at which all the jobs completed. Full seconds: Glacier's dates have milliseconds at most.
#[derive(Debug, Clone, Copy)]
pub struct Completion(SystemTime);

impl Completion {
    /// So many seconds after 1970.
    pub fn at(seconds: u64) -> Self {
        Self(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// A minute ago, so that no clock finds it in the future and every answer stays fresh for a day.
    pub fn recent() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(now.as_secs().saturating_sub(60))
    }

    /// Seconds after 1970.
    pub fn seconds(self) -> u64 {
        self.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn creation(self) -> SystemTime {
        self.0 - TOOK
    }
}

/// Glacier's answer about a job.
pub fn json(vault: &str, id: &str, completion: Completion) -> Outcome<String> {
    let date = |time: SystemTime| OffsetDateTime::from(time).format(&Rfc3339);
    Ok(serde_json::json!({
        "Action": "ArchiveRetrieval",
        "ArchiveId": ARCHIVE_ID,
        "ArchiveSHA256TreeHash": TREE_HASH,
        "ArchiveSizeInBytes": SIZE,
        "Completed": true,
        "CompletionDate": date(completion.0)?,
        "CreationDate": date(completion.creation())?,
        "InventoryRetrievalParameters": null,
        "InventorySizeInBytes": null,
        "JobDescription": "restore of the photos",
        "JobId": id,
        "RetrievalByteRange": format!("0-{}", SIZE - 1),
        "SHA256TreeHash": TREE_HASH,
        "SNSTopic": TOPIC,
        "StatusCode": "Succeeded",
        "StatusMessage": "Succeeded",
        "Tier": "Standard",
        "VaultARN": vault_arn(vault),
    })
    .to_string())
}

/// The message that Glacier's answer must become.
pub fn response(vault: &str, key: u32, completion: Completion, observed: SystemTime) -> DescribeJobResponse {
    let job = GlacierJobDescription {
        action: Action::ArchiveRetrieval.into(),
        archive_id: Some(ARCHIVE_ID.to_owned()),
        archive_sha256_tree_hash: Some(TREE_HASH.to_owned()),
        archive_size_in_bytes: Some(SIZE),
        completed: Some(true),
        completion_date: Some(completion.0.into()),
        creation_date: Some(completion.creation().into()),
        job_description: Some("restore of the photos".to_owned()),
        job_id: Some(id(key)),
        retrieval_byte_range: Some(format!("0-{}", SIZE - 1)),
        sha256_tree_hash: Some(TREE_HASH.to_owned()),
        sns_topic: Some(TOPIC.to_owned()),
        status_code: StatusCode::Succeeded.into(),
        status_message: Some("Succeeded".to_owned()),
        tier: Tier::Standard.into(),
        vault_arn: Some(vault_arn(vault)),
        ..GlacierJobDescription::default()
    };
    DescribeJobResponse {
        job: Some(job),
        observe_time: Some(observed.into()),
        expire_time: Some((completion.0 + KEPT).into()),
    }
}

/// What a server that asks nobody answers: observed when it completed.
pub fn fixed_response(key: u32, completion: Completion) -> DescribeJobResponse {
    response(VAULT, key, completion, completion.0)
}

/// A message behind its gRPC prefix.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    frame
}

fn vault_arn(vault: &str) -> String {
    format!("arn:aws:glacier:eu-west-1:{ACCOUNT}:vaults/{vault}")
}

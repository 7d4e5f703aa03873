//! Bodies of successful answers.
//!
//! The decoder is compared with a second reading of the same JSON that knows only the proto file and the naming rule.

use std::{
    collections::HashMap,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    cache::Description,
    freshness::{FreshnessSettings, JobState, Lifetime},
    fuzzing::Door,
    job::{JobFacts, JobKey},
    proto::{
        self,
        v1::{DescribeJobResponse, GlacierJobDescription},
    },
    upstream::UpstreamErrorKind as Kind,
};
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _};
use serde_json::{Map, Value};

/// The job that is asked for, in every input.
const JOB: &str = "fuzzed-job";
const VAULT: &str = "examplevault";
/// Ours, not Glacier's.
const UNRECOGNIZED: &str = "unrecognized_values";

static JOB_DESCRIPTOR: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(proto::DESCRIPTOR_SET).expect("the embedded descriptors are sound");
    pool.get_message_by_name("glacier.jobs.v1.GlacierJobDescription").expect("the message is there")
});

/// Either an error, or a description of the job that was asked for in which every value of a known member is in its
/// typed field or, as text, among the unrecognized values, never in both and never in neither.
pub fn describe_job_answer(input: &[u8]) {
    let key = JobKey::parse("-", VAULT, JOB).expect("a legal key");
    let document = serde_json::from_slice::<Map<String, Value>>(input).ok();
    let job = match Door::interpret(StatusCode::OK, &HeaderMap::new(), input, &key) {
        Ok(job) => job,
        Err(error) => {
            match error.kind {
                Kind::Malformed => assert!(document.is_none_or(|members| !says_anything(&members)), "{error:?}"),
                Kind::WrongJob => assert!(document.is_some_and(|members| !names_this(&members)), "{error:?}"),
                other => panic!("an answer of success cannot mean {other:?}"),
            }
            assert_eq!((error.http_status, error.glacier_code, error.request_id), (Some(200), None, None));
            return;
        }
    };
    let document = document.expect("only a JSON object is a description");
    assert_eq!(job.job_id.as_deref(), Some(JOB), "{job:?}");
    assert!(names_this(&document), "{job:?}");

    let message =
        DynamicMessage::decode(JOB_DESCRIPTOR.clone(), job.encode_to_vec().as_slice()).expect("our own bytes");
    let mut lost = HashMap::new();
    compare(&message, &document, "", &mut lost);
    assert_eq!(job.unrecognized_values, lost);
    check_policy(&job);
}

/// Policy and encoding stand whatever the dates and sizes are.
fn check_policy(job: &GlacierJobDescription) {
    let facts = JobFacts::of(job);
    for observed in [0, 1_332_263_023, 4_102_444_800].map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s)) {
        let description = Description::new(job.clone(), observed);
        assert!(job.unrecognized_values.is_empty() || description.state == JobState::Doubtful);
        let lifetime = Lifetime::of_description(&facts, observed, 0.5, &FreshnessSettings::default());
        assert!(lifetime.fresh <= lifetime.usable, "{lifetime:?}");
        let response = DescribeJobResponse::decode(description.message.message()).expect("our own bytes");
        assert_eq!(response.job.as_ref(), Some(job));
    }
}

fn says_anything(document: &Map<String, Value>) -> bool {
    let names: Vec<_> = glacier_fields(&JOB_DESCRIPTOR).map(|field| glacier_name(&field)).collect();
    names.iter().any(|name| document.get(name).is_some_and(|value| !value.is_null()))
}

/// Names the job, and no other vault.
fn names_this(document: &Map<String, Value>) -> bool {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let is_arn_of_vault = |arn: &str| {
        let parts: Vec<_> = arn.splitn(6, ':').collect();
        matches!(parts[..], ["arn", _, "glacier", _, account, vault] if vault == format!("vaults/{VAULT}")
            && !account.is_empty() && account.chars().all(|c| c.is_ascii_digit()))
    };
    text("JobId") == Some(JOB) && text("VaultARN").is_none_or(is_arn_of_vault)
}

fn glacier_fields(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    message.fields().filter(|field| field.name() != UNRECOGNIZED)
}

/// `vault_arn` is `VaultARN`.
fn glacier_name(field: &FieldDescriptor) -> String {
    match field.name() {
        "csv" => return "csv".to_owned(),
        "id" => return "ID".to_owned(),
        _ => {}
    }
    let words = field.name().split('_').map(|word| match word {
        "sns" | "sha256" | "arn" | "acl" | "kms" | "uri" | "s3" => word.to_uppercase(),
        _ => word[..1].to_uppercase() + &word[1..],
    });
    words.collect()
}

/// Compares every field of `message` with the member of `document` that it stands for; collects what must be lost.
fn compare(message: &DynamicMessage, document: &Map<String, Value>, path: &str, lost: &mut HashMap<String, String>) {
    for field in glacier_fields(&message.descriptor()) {
        let name = glacier_name(&field);
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_set = message.has_field(&field);
        let Some(value) = document.get(&name).filter(|value| !value.is_null()) else {
            assert!(!is_set, "{path} comes from nowhere");
            continue;
        };
        let typed = message.get_field(&field);
        let fits = if field.is_map() {
            value.as_object().map(|members| compare_map(&typed, members, &path, lost))
        } else if field.is_list() {
            value.as_array().map(|elements| compare_list(&typed, elements, &path, lost))
        } else {
            // What is not a date or one of a closed set's values only the decoder says; all else is plain.
            fits(&typed, value, is_set, &path, lost).then_some(())
        };
        if fits.is_none() {
            assert!(!is_set, "{path} is {value} and yet it is set");
            keep(path, value, lost);
        }
    }
}

fn keep(path: String, value: &Value, lost: &mut HashMap<String, String>) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    assert_eq!(lost.insert(path, text), None, "two values under one path");
}

/// Whether the field holds `value`; panics if it holds another.
fn fits(
    typed: &prost_reflect::Value,
    value: &Value,
    is_set: bool,
    path: &str,
    lost: &mut HashMap<String, String>,
) -> bool {
    use prost_reflect::Value as Typed;
    match (typed, value) {
        (Typed::String(held), Value::String(given)) => {
            assert!(is_set && held == given, "{path}");
            true
        }
        (Typed::Bool(held), Value::Bool(given)) => {
            assert!(is_set && held == given, "{path}");
            true
        }
        (Typed::I64(held), Value::Number(given)) if given.as_i64().is_some() => {
            assert!(is_set && Some(*held) == given.as_i64(), "{path}");
            true
        }
        (Typed::EnumNumber(0), _) => false,
        (Typed::EnumNumber(number), Value::String(given)) => {
            let name = path.rsplit('.').next().unwrap_or(path);
            let spelt = choices(name).into_iter().find(|(_, choice)| choice == number).map(|(spelt, _)| spelt);
            assert_eq!(spelt.as_deref(), Some(given.as_str()), "{path}");
            true
        }
        (Typed::Message(date), given) if date.descriptor().full_name() == "google.protobuf.Timestamp" => {
            if is_set {
                check_date(&date.transcode_to().expect("a timestamp"), given.as_str().expect("dates are texts"));
            }
            is_set
        }
        (Typed::Message(held), Value::Object(members)) => {
            assert!(is_set, "{path}");
            compare(held, members, path, lost);
            true
        }
        _ => false,
    }
}

/// Glacier's spelling of each value of the enum of this top-level member: `ACTION_ARCHIVE_RETRIEVAL` is
/// `ArchiveRetrieval`.
fn choices(member: &str) -> Vec<(String, i32)> {
    let field = JOB_DESCRIPTOR.fields().find(|field| glacier_name(field) == member).expect("a known member");
    let prost_reflect::Kind::Enum(choices) = field.kind() else { panic!("{member} is no enum") };
    let prefix = field.name().to_uppercase() + "_";
    let spelt = |choice: prost_reflect::EnumValueDescriptor| {
        let words = choice.name().strip_prefix(&prefix).expect("named after its enum").to_lowercase();
        let spelt = words.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        (spelt, choice.number())
    };
    choices.values().map(spelt).collect()
}

/// A date in UTC is the date that was written, to the second (a leap second is held as the one before).
fn check_date(date: &prost_types::Timestamp, given: &str) {
    assert!((0..1_000_000_000).contains(&date.nanos), "{given}");
    if given.ends_with(['Z', 'z']) && given.get(17..19) != Some("60") {
        let written = date.to_string();
        assert_eq!(written.get(..19), given.get(..19), "{given} became {written}");
    }
}

fn compare_map(
    typed: &prost_reflect::Value,
    members: &Map<String, Value>,
    path: &str,
    lost: &mut HashMap<String, String>,
) {
    let held = typed.as_map().expect("a map");
    let mut texts = 0;
    for (key, value) in members {
        let held = held.get(&prost_reflect::MapKey::String(key.clone())).and_then(prost_reflect::Value::as_str);
        assert_eq!(held, value.as_str(), "{path}.{key}");
        match value {
            Value::Null => {}
            Value::String(_) => texts += 1,
            other => keep(format!("{path}.{key}"), other, lost),
        }
    }
    assert_eq!(held.len(), texts, "{path} holds more than it was given");
}

fn compare_list(typed: &prost_reflect::Value, elements: &[Value], path: &str, lost: &mut HashMap<String, String>) {
    let mut held = typed.as_list().expect("a list").iter();
    for (index, element) in elements.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match element {
            Value::Null => {}
            Value::Object(members) => {
                let held = held.next().and_then(prost_reflect::Value::as_message).expect("one for each object");
                compare(held, members, &path, lost);
            }
            other => keep(path, other, lost),
        }
    }
    assert!(held.next().is_none(), "{path} holds more than it was given");
}

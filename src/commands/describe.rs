//! `describe`: a small client for machines without grpcurl. The answer goes to stdout as JSON, everything else to stderr.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::failed;
use crate::{
    grpc::client::{Client, ClientTls, Described, Refusal},
    proto::{self, v1::DescribeJobRequest, v1::DescribeJobResponse},
};

/// What to ask, and whom.
#[derive(Debug, Clone)]
pub struct Question {
    /// The request.
    pub request: DescribeJobRequest,
    /// The gateway, `http://HOST:PORT`, or `https://HOST:PORT` with `tls`.
    pub target: String,
    /// What to go by in TLS.
    pub tls: Option<ClientTls>,
    /// How long to wait.
    pub timeout: Duration,
}

/// Asks, prints, and exits with 0 only for an answer.
pub async fn run(question: Question) -> ExitCode {
    let Question { request, target, tls, timeout } = question;
    let client = match tls {
        Some(tls) => Client::over_tls(&target, timeout, tls),
        None => Client::new(&target, timeout),
    };
    let mut client = match client {
        Ok(client) => client,
        Err(error) => return failed(&format!("--target {target:?}: {error}")),
    };
    match client.describe_job(request, timeout).await {
        Ok(described) => match print(&described) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("cannot print the answer: {error}")),
        },
        Err(refusal) => failed(&explain(&refusal)),
    }
}

fn print(described: &Described) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut aside = io::stderr();
    writeln!(aside, "cache-status: {}", described.cache_status.as_deref().unwrap_or("(none)"))?;
    writeln!(aside, "age: {}", described.age.as_deref().unwrap_or("(none)"))?;
    writeln!(io::stdout(), "{}", to_json(&described.response)?)?;
    Ok(())
}

/// Canonical protobuf JSON with the proto's own field names, indented.
pub fn to_json(response: &DescribeJobResponse) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let pool = DescriptorPool::decode(proto::DESCRIPTOR_SET)?;
    let kind =
        pool.get_message_by_name("glacier.jobs.v1.DescribeJobResponse").ok_or("the descriptor is not embedded")?;
    let message = DynamicMessage::decode(kind, response.encode_to_vec().as_slice())?;
    let mut json = serde_json::Serializer::pretty(Vec::new());
    message.serialize_with_options(&mut json, &SerializeOptions::new().use_proto_field_name(true))?;
    Ok(String::from_utf8(json.into_inner())?)
}

/// The error with its reason and details, a line each.
fn explain(refusal: &Refusal) -> String {
    let mut lines = vec![refusal.to_string()];
    lines.extend(refusal.reason.iter().map(|reason| format!("reason: {reason}")));
    lines.extend(refusal.violations.iter().map(|(field, words)| format!("{field}: {words}")));
    lines.extend(refusal.metadata.iter().map(|(key, value)| format!("{key}: {value}")));
    lines.extend(refusal.resource.iter().map(|(kind, name)| format!("resource: {kind} {name}")));
    lines.extend(refusal.retry_delay.iter().map(|delay| format!("retry in: {delay:?}")));
    lines.extend(refusal.cache_status.iter().map(|status| format!("cache-status: {status}")));
    lines.extend(refusal.request_id.iter().map(|id| format!("x-request-id: {id}")));
    lines.join("\n  ")
}

//! What an answer must be, byte by byte.

use std::time::SystemTime;

use glacier_gateway::proto::v1::DescribeJobResponse;
use prost::Message;
use side_by_side::{
    Outcome,
    job::{self, Completion, PREFIX},
};

use crate::question::digits;

/// The right answers of one server.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The DATA of an answer; about job 0 where they differ.
    frame: Vec<u8>,
    keys: Keys,
    /// Header lines that there must be, and how their values begin.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Whether it ends in trailers with `grpc-status: 0`; else with its DATA.
    pub(crate) trailers: bool,
}

#[derive(Debug, Clone)]
enum Keys {
    /// Every answer is the same.
    Ignored,
    /// The job id differs.
    Named { digits_at: usize },
    /// So does the end, which holds the moment of observation: learnt from each job's first answer, after that has been
    /// decoded and compared.
    Learnt { digits_at: usize, job_ends_at: usize, tails: Vec<Tail>, vault: String, completion: Completion },
}

/// Room for two dates.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    length: u8,
    bytes: [u8; 31],
}

impl Expected {
    pub(crate) fn fixed(frame: Vec<u8>) -> Self {
        Self { frame, keys: Keys::Ignored, headers: &[(":status", "200")], trailers: true }
    }

    /// The same, without trailers.
    pub(crate) fn without_trailers(frame: Vec<u8>) -> Self {
        Self { trailers: false, ..Self::fixed(frame) }
    }

    /// The harness's own caches.
    pub(crate) fn named(completion: Completion) -> Outcome<Self> {
        let frame = job::frame(&job::fixed_response(0, completion));
        let digits_at = digits_of(&frame)?;
        Ok(Self { keys: Keys::Named { digits_at }, ..Self::fixed(frame) })
    }

    /// The gateway.
    pub(crate) fn learnt(vault: &str, completion: Completion, jobs: u32) -> Outcome<Self> {
        let response = job::response(vault, 0, completion, SystemTime::now());
        let frame = job::frame(&response);
        let encoded_job = response.job.as_ref().map_or(0, Message::encoded_len);
        let keys = Keys::Learnt {
            digits_at: digits_of(&frame)?,
            // One byte of tag, two of length.
            job_ends_at: PREFIX + 3 + encoded_job,
            tails: vec![Tail::default(); jobs as usize],
            vault: vault.to_owned(),
            completion,
        };
        let headers = &[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("cache-status", "glacier-gateway; "),
            ("age", ""),
            ("x-request-id", ""),
        ];
        Ok(Self { keys, headers, ..Self::fixed(frame) })
    }

    /// Whether `bytes`, `offset` bytes into the answer about `key`, are right; how many bytes there must be in all.
    pub(crate) fn check(&mut self, key: u32, offset: usize, bytes: &[u8], scratch: &mut Vec<u8>) -> Outcome<usize> {
        match &mut self.keys {
            Keys::Ignored => return compare(&self.frame, offset, bytes),
            Keys::Named { digits_at } => {
                scratch.clone_from(&self.frame);
                digits(&mut scratch[*digits_at..], key);
            }
            Keys::Learnt { digits_at, job_ends_at, tails, vault, completion } => {
                let tail = tails.get_mut(key as usize).ok_or("an answer about a job that nobody asked for")?;
                if tail.length == 0 {
                    *tail = learn(key, bytes, *job_ends_at, vault, *completion)?;
                }
                let tail = &tail.bytes[..usize::from(tail.length)];
                scratch.clear();
                scratch.extend_from_slice(&self.frame[..*job_ends_at]);
                digits(&mut scratch[*digits_at..], key);
                scratch.extend_from_slice(tail);
                let length = u32::try_from(scratch.len() - PREFIX)?;
                scratch[1..PREFIX].copy_from_slice(&length.to_be_bytes());
            }
        }
        compare(scratch, offset, bytes)
    }
}

fn digits_of(frame: &[u8]) -> Outcome<usize> {
    let id = job::id(0);
    let at = frame.windows(id.len()).position(|window| window == id.as_bytes()).ok_or("no job id in the answer")?;
    Ok(at + id.len() - job::DIGITS)
}

fn compare(right: &[u8], offset: usize, bytes: &[u8]) -> Outcome<usize> {
    match right.get(offset..offset + bytes.len()) {
        Some(part) if part == bytes => Ok(right.len()),
        _ => Err(format!("a wrong answer: {bytes:?} instead of {right:?}").into()),
    }
}

fn learn(key: u32, bytes: &[u8], job_ends_at: usize, vault: &str, completion: Completion) -> Outcome<Tail> {
    let message = bytes.get(PREFIX..).ok_or("an answer in pieces")?;
    let response = DescribeJobResponse::decode(message)?;
    let observed = response.observe_time.ok_or("no moment of observation")?;
    let observed = SystemTime::try_from(observed)?;
    if SystemTime::now().duration_since(observed)?.as_secs() > 3600 {
        return Err(format!("observed long ago: {response:?}").into());
    }
    if response != job::response(vault, key, completion, observed) {
        return Err(format!("a wrong description: {response:?}").into());
    }
    let end = bytes.get(job_ends_at..).ok_or("a short answer")?;
    let mut tail = Tail { length: u8::try_from(end.len())?, bytes: [0; 31] };
    tail.bytes.get_mut(..end.len()).ok_or("a long tail")?.copy_from_slice(end);
    Ok(tail)
}

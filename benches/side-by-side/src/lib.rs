//! What the harness and its small servers share: the job that all of them describe, its encoded answer, and how the
//! servers are started.

pub mod asking;
pub mod job;
pub mod serving;

/// The server side of the proto file, for the tonic peers.
#[expect(clippy::pedantic, clippy::allow_attributes, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("glacier.jobs.v1");
}

/// Any failure of the harness; it ends the run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of a step of the harness.
pub type Outcome<T> = Result<T, Failure>;

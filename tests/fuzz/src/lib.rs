//! What is fuzzed, and what must be true of it whatever the input.
//!
//! Each function takes any bytes and panics if an invariant does not hold. libFuzzer calls them from `fuzz_targets`;
//! the gateway's own `cargo test` replays `corpus` through them (`tests/it/corpora.rs`).

mod description;
mod error;
mod path;
mod timeout;

pub use description::describe_job_answer;
pub use error::error_answer;
pub use path::signed_path;
pub use timeout::grpc_timeout;

//! The integration tests: one binary, one module per concern, tests named as sentences.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod admin;
mod calls;
mod capacity;
mod chain;
mod cli;
mod coalescing;
mod compression;
mod corpora;
mod dates;
mod documents;
mod errors;
mod fairness;
mod faults;
mod house;
mod identity;
mod members;
mod memory;
mod metrics;
mod network;
mod open_calls;
mod policy;
mod providers;
mod proxy;
mod rollout;
mod rotation;
mod roundtrip;
mod schedules;
mod serving;
mod stale;
mod support;
mod throttling;
mod tls;
#[cfg(feature = "traces")]
mod traces;
mod training;
mod truth;
mod upstream;
mod windows;
mod wire;

//! A gRPC gateway in front of Amazon S3 Glacier's `DescribeJob`.
//!
//! Microservices ask `glacier.jobs.v1.JobService`; the gateway answers from what it knows, asks Glacier (signed for
//! everybody) when that is not fresh enough, and says how old each answer is.
//!
//! # How one call travels
//!
//! ```text
//! caller ── HTTP/2 ──▶ server        accepts, bounds and drains connections
//!                        │
//!                      grpc          validate → JobKey; deadline; map the outcome to a message or a status
//!                        │
//!                      describe      what do we know, is it fresh enough, who is already asking?
//!                       ╱ ╲
//!                   cache   glacier  sign, send, retry within budget, parse, classify
//! ```
//!
//! # What lives where
//!
//! | room | what it holds |
//! | --- | --- |
//! | [`app`] | the composition root: bind, wire, run; the only file that names every layer |
//! | [`commands`] | what `serve`, `demo`, `describe` and `healthcheck` do |
//! | [`config`] | flags and environment, validated into each layer's own settings |
//! | [`job`] | what names a job ([`job::JobKey`]), and the facts about one that policy needs |
//! | [`freshness`] | the pure policy: how long is this true? |
//! | [`cache`] | what we know, and the one door through which knowledge enters |
//! | [`describe`] | the use case: look up, coalesce, fetch, decide |
//! | [`upstream`] | the port: [`upstream::JobSource`], how it may fail, and how much it is asked ([`upstream::admission`]) |
//! | [`network`] | the way to AWS: proxy and authorities, for all clients |
//! | [`glacier`] | Glacier's REST API: request, signing, answers, errors, retries |
//! | [`credentials`] | AWS's credential chain and shared files, and the credentials that serve |
//! | [`grpc`] | the gRPC face: job service, health, reflection, statuses |
//! | [`server`] | the accept loop, TLS, connections and their limits, the drain |
//! | [`admin`] | metrics and probes over plain HTTP, on a port of their own |
//! | [`reload`] | values made of files, made anew when the files change |
//! | [`caller`] | who calls: address, and identity from a verified certificate |
//! | [`policy`] | who may ask about what: a pure value, read from a file |
//! | [`lifecycle`] | the phases of the process, which `grpc`, `server` and `admin` act on |
//! | [`lobby`] | where strangers wait for a short while, the oldest of whom leaves for the next when it is full |
//! | [`clock`] | the one door to the wall clock |
//! | [`telemetry`] | logs, the thread that writes them, and how many lines each may cause |
//! | [`traces`] | spans of calls and of requests to Glacier, sent to a collector (cargo feature `traces`) |
//! | [`metrics`] | what is counted; other rooms report through its handles |
//! | [`proto`] | generated messages; they are the data types and go anywhere |
//! | `fuzzing` | the door for the fuzz targets; called by no other code |
//! | `emulator` | an emulated Glacier over HTTP, for the demo and the tests (cargo feature `emulator`) |
//!
//! # Invariants
//!
//! A test over the sources (`tests/it/house.rs`) holds these:
//!
//! - tonic only in `grpc`, `server` and generated code; reqwest only in `glacier`, `network` and `credentials`, `aws_*` only in
//!   `glacier` and `credentials`; moka only in `cache.rs`;
//!   hyper only in `server`, `admin` and `emulator`; rustls, x509-parser and rustix only in `server`; the Prometheus crate only in
//!   `metrics`, which knows no other room; TOML only in `policy`; OpenTelemetry only in `traces`; flate2 only in `grpc`.
//! - `glacier` and `grpc` know nothing of each other. Only `main` imports `config`: each layer owns its settings.
//! - The environment is read in `config` (and by the AWS credential chain and the TLS library's search for roots, and what `config` has checked by OpenTelemetry's
//!   SDK), the wall clock in `clock` (and, for spans, by that SDK).
//! - No `unsafe`, no file above 400 lines of code.
//!
//! # Absent on purpose
//!
//! - No call that changes anything in Glacier.
//! - No global error type: one error enum per layer, beside what fails.
//! - No coalescing inside moka: its fetch would live, and die, in the first caller's future.
//! - No tonic transport server: see [`server`] for what it cannot do.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cache;
pub mod caller;
pub mod clock;
pub mod commands;
pub mod config;
pub mod credentials;
pub mod describe;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod freshness;
#[doc(hidden)]
pub mod fuzzing;
pub mod glacier;
pub mod grpc;
pub mod job;
pub mod lifecycle;
pub mod lobby;
pub mod metrics;
pub mod network;
pub mod policy;
pub mod proto;
pub mod reload;
pub mod server;
pub mod telemetry;
pub mod traces;
pub mod upstream;

//! A gRPC gateway in front of Amazon S3 Glacier's `DescribeJob`.

#![forbid(unsafe_code)]

pub mod cache;
pub mod clock;
pub mod describe;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod freshness;
pub mod glacier;
pub mod grpc;
pub mod job;
pub mod lifecycle;
pub mod proto;
pub mod server;
pub mod upstream;

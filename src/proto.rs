//! The generated protobuf messages and client of `proto/glacier/jobs/v1`, and their descriptor sets.
//!
//! The messages are our data types and may go anywhere. The client is wrapped by [`crate::grpc::client`].

use bytes::Bytes;
use prost::Message;

/// Package `glacier.jobs.v1`.
#[expect(clippy::pedantic, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("glacier.jobs.v1");
}

/// Bytes before a message in gRPC: a flag that says whether it is compressed, and its length ("gRPC over HTTP2").
pub const MESSAGE_PREFIX: usize = 5;

/// An encoded message behind its prefix, uncompressed: what gRPC sends.
pub fn prefixed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    // No message of ours comes near 4 GiB; one that did would be refused by whoever reads it.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// The encoded `FileDescriptorSet` of our proto file and all that it imports, comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/glacier_jobs_v1.bin"));

//! The generated protobuf messages and client of `proto/glacier/jobs/v1`, and their descriptor sets.
//!
//! The messages are our data types and may go anywhere. The client is wrapped by [`crate::grpc::client`].

use std::{fmt, sync::Arc};

use prost::Message;

/// Package `glacier.jobs.v1`.
#[expect(clippy::pedantic, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("glacier.jobs.v1");
}

/// Bytes before a message in gRPC: a flag that says whether it is compressed, and its length ("gRPC over HTTP2").
pub const MESSAGE_PREFIX: usize = 5;

/// An encoded message behind its prefix, uncompressed: what gRPC sends. Cheap to clone. `Bytes` would keep the count of
/// clones in an allocation of its own, which a million messages would pay for, and each look-up.
#[derive(Clone, PartialEq, Eq)]
pub struct LengthPrefixed(Arc<[u8]>);

impl LengthPrefixed {
    /// Encodes a message.
    pub fn of(message: &impl Message) -> Self {
        let message = message.encode_to_vec();
        // No message of ours comes near 4 GiB; one that did would be refused by whoever reads it.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        Self([&[0], &length.to_be_bytes()[..], &message].concat().into())
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The encoded message alone.
    pub fn message(&self) -> &[u8] {
        &self.0[MESSAGE_PREFIX..]
    }
}

impl fmt::Debug for LengthPrefixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LengthPrefixed({} bytes)", self.0.len())
    }
}

/// The encoded `FileDescriptorSet` of our proto file and all that it imports, comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/glacier_jobs_v1.bin"));

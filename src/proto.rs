//! The generated protobuf messages and client of `proto/glacier/jobs/v1`, and their descriptor sets.
//!
//! The messages are our data types and may go anywhere. The client is wrapped by [`crate::grpc::client`].

/// Package `glacier.jobs.v1`.
#[expect(clippy::pedantic, unused_qualifications, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("glacier.jobs.v1");
}

/// The encoded `FileDescriptorSet` of our proto file and all that it imports, comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/glacier_jobs_v1.bin"));

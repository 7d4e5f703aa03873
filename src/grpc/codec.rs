//! The codec of `DescribeJob`: requests are decoded, answers are bytes that the cache holds ready.

use bytes::{BufMut, Bytes};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

use crate::proto::v1::{DescribeJobRequest, DescribeJobResponse};

type Prost = ProstCodec<DescribeJobResponse, DescribeJobRequest>;

/// tonic's default is an 8 KiB buffer per answer; a typical one has 600 bytes and the buffer grows if need be.
const ANSWER_BUFFER: usize = 1024;
/// tonic's default; it matters to streams only.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// Decodes `DescribeJobRequest`, passes an encoded `DescribeJobResponse` through.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadyCodec;

/// Passes bytes through.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadyEncoder;

impl Codec for ReadyCodec {
    type Encode = Bytes;
    type Decode = DescribeJobRequest;
    type Encoder = ReadyEncoder;
    type Decoder = <Prost as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ReadyEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        Prost::raw_decoder(BufferSettings::default())
    }
}

impl Encoder for ReadyEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER_BUFFER, YIELD_THRESHOLD)
    }
}

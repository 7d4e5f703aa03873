//! The codec of `DescribeJob`: requests are decoded, answers are bytes that the cache holds ready.

use bytes::{BufMut, Bytes};
use prost::Message as _;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::status::{self, CallError};
use crate::proto::v1::DescribeJobRequest;

/// A request is three short names.
const REQUEST_BUFFER: usize = 512;

/// tonic's default is an 8 KiB buffer per answer; a typical one has 600 bytes and the buffer grows if need be.
const ANSWER_BUFFER: usize = 1024;
/// tonic's default; it matters to streams only.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// Decodes `DescribeJobRequest`, passes an encoded `DescribeJobResponse` through.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadyCodec;

/// Decodes requests. What cannot be decoded is the caller's fault; tonic's own decoder would call it INTERNAL.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestDecoder;

/// Passes bytes through.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadyEncoder;

impl Codec for ReadyCodec {
    type Encode = Bytes;
    type Decode = DescribeJobRequest;
    type Encoder = ReadyEncoder;
    type Decoder = RequestDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ReadyEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder
    }
}

impl Decoder for RequestDecoder {
    type Item = DescribeJobRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DescribeJobRequest>, Status> {
        // prost's own words name the field at fault; they hold nothing of its content.
        DescribeJobRequest::decode(buffer)
            .map(Some)
            .map_err(|error| status::of(CallError::NoRequest(format!("not a DescribeJobRequest: {error}"))))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REQUEST_BUFFER, YIELD_THRESHOLD)
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

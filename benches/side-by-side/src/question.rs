//! Requests as ready-made bytes: one HEADERS and one DATA frame in which only the stream's id and the job's digits change.
//! The header block uses HPACK's static table and literals that are never indexed, so that it is the same on every stream.

use glacier_gateway::proto::v1::DescribeJobRequest;
use side_by_side::job;

use crate::frames::{self, END_HEADERS, END_STREAM, Kind};

const PATH: &str = "/glacier.jobs.v1.JobService/DescribeJob";

/// A request to write again and again.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    bytes: Vec<u8>,
    /// Where the DATA frame begins.
    data_at: usize,
    digits_at: usize,
}

impl Question {
    /// `DescribeJob` about jobs of `vault`. Envoy would turn a static answer to gRPC into one without a body, so the
    /// content type is for the caller to say.
    pub(crate) fn new(vault: &str, content_type: &str) -> Self {
        Self::of(&job::request(vault, 0), content_type)
    }

    fn of(request: &DescribeJobRequest, content_type: &str) -> Self {
        let mut block = vec![0x83, 0x86];
        literal(&mut block, &[0x04], PATH);
        literal(&mut block, &[0x01], "gateway.internal:50051");
        literal(&mut block, &[0x0f, 0x10], content_type);
        literal(&mut block, &[0x00, 2, b't', b'e'], "trailers");
        literal(&mut block, &[0x0f, 0x2b], "side-by-side");
        let mut bytes = Vec::new();
        frames::head(&mut bytes, block.len(), Kind::Headers, END_HEADERS, 0);
        bytes.extend_from_slice(&block);
        let data_at = bytes.len();
        let frame = job::frame(request);
        frames::head(&mut bytes, frame.len(), Kind::Data, END_STREAM, 0);
        bytes.extend_from_slice(&frame);
        // The job id is the last field.
        let digits_at = bytes.len() - job::DIGITS;
        Self { bytes, data_at, digits_at }
    }

    /// Appends the request.
    pub(crate) fn write(&self, out: &mut Vec<u8>, stream: u32, key: u32) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let written = &mut out[start..];
        frames::set_stream(written, stream);
        frames::set_stream(&mut written[self.data_at..], stream);
        digits(&mut written[self.digits_at..], key);
    }

    /// What a request takes of the connection's window.
    pub(crate) fn payload(&self) -> usize {
        self.bytes.len() - self.data_at - frames::HEAD
    }
}

/// A literal header line that is not indexed; `name` is its representation. No value here reaches 127 bytes.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(u8::try_from(value.len()).unwrap_or(126));
    block.extend_from_slice(value.as_bytes());
}

/// Writes a key over the first digits of `place`.
pub(crate) fn digits(place: &mut [u8], key: u32) {
    let mut rest = key;
    for digit in place[..job::DIGITS].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
}

//! Requests as ready-made bytes: one HEADERS and one DATA frame in which only the stream's id and the job's digits change.
//! As gRPC's clients do, the first header block of a connection puts its lines into HPACK's dynamic table, and all others
//! point there.

use glacier_gateway::proto::v1::DescribeJobRequest;
use side_by_side::job;

use crate::frames::{self, END_HEADERS, END_STREAM, Kind};

const PATH: &str = "/glacier.jobs.v1.JobService/DescribeJob";
/// `:method: POST` and `:scheme: http`, of HPACK's static table.
const POST_HTTP: [u8; 2] = [0x83, 0x86];
/// The five lines of the first block, in its order: the table counts from the newest, which is 62 (0x80 | 62).
const AGAIN: [u8; 5] = [0xc2, 0xc1, 0xc0, 0xbf, 0xbe];

/// A request to write again and again.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    first: Template,
    later: Template,
}

/// The bytes of a request.
#[derive(Debug, Clone)]
struct Template {
    bytes: Vec<u8>,
    /// Where the DATA frame begins.
    data_at: usize,
    digits_at: usize,
}

impl Question {
    /// `DescribeJob` about jobs of `vault`. Envoy would turn a static answer to gRPC into one without a body, so the
    /// content type is for the caller to say.
    pub(crate) fn new(vault: &str, content_type: &str) -> Self {
        let request = job::request(vault, 0);
        let mut block = POST_HTTP.to_vec();
        literal(&mut block, &[0x44], PATH);
        literal(&mut block, &[0x41], "gateway.internal:50051");
        literal(&mut block, &[0x5f], content_type);
        literal(&mut block, &[0x40, 2, b't', b'e'], "trailers");
        literal(&mut block, &[0x7a], "side-by-side");
        let again = [&POST_HTTP[..], &AGAIN].concat();
        Self { first: Template::new(&block, &request), later: Template::new(&again, &request) }
    }

    /// Appends the request, which is or is not the first of its connection.
    pub(crate) fn write(&self, out: &mut Vec<u8>, is_first: bool, stream: u32, key: u32) {
        let Template { bytes, data_at, digits_at } = if is_first { &self.first } else { &self.later };
        let start = out.len();
        out.extend_from_slice(bytes);
        let written = &mut out[start..];
        frames::set_stream(written, stream);
        frames::set_stream(&mut written[*data_at..], stream);
        digits(&mut written[*digits_at..], key);
    }

    /// What a request takes of the connection's window.
    pub(crate) fn payload(&self) -> usize {
        self.later.bytes.len() - self.later.data_at - frames::HEAD
    }
}

impl Template {
    fn new(block: &[u8], request: &DescribeJobRequest) -> Self {
        let mut bytes = Vec::new();
        frames::head(&mut bytes, block.len(), Kind::Headers, END_HEADERS, 0);
        bytes.extend_from_slice(block);
        let data_at = bytes.len();
        let frame = job::frame(request);
        frames::head(&mut bytes, frame.len(), Kind::Data, END_STREAM, 0);
        bytes.extend_from_slice(&frame);
        // The job id is the last field.
        let digits_at = bytes.len() - job::DIGITS;
        Self { bytes, data_at, digits_at }
    }
}

/// A literal header line that goes into the table; `name` is its representation. No value here reaches 127 bytes.
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

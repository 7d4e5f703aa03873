//! What becomes of one answer when something goes wrong: what is said instead of it, when, and how it is delivered.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    gate::Gate,
    glacier::{Reply, error_document},
};

/// What becomes of one answer. Combine: `Fault::error(500, "…").after(delay).dripping(1, second)`.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(crate) answer: Answer,
    pub(crate) delay: Option<Duration>,
    pub(crate) gate: Option<Gate>,
    pub(crate) delivery: Delivery,
    pub(crate) close_after: bool,
}

/// What is said.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// What Glacier would say, checks and all.
    Ordinary,
    Instead(Reply),
    /// Nothing, with the connection left open.
    Never,
    /// Nothing, with the connection closed.
    Close {
        reset: bool,
    },
}

/// How a body travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Drip { bytes: usize, every: Duration },
    Cut { after: usize, reset: bool },
    Endless,
}

impl Fault {
    fn saying(answer: Answer) -> Self {
        Self { answer, delay: None, gate: None, delivery: Delivery::Whole, close_after: false }
    }

    /// Nothing goes wrong: the ordinary answer. Useful in a sequence, and as the base of what follows.
    pub fn pass() -> Self {
        Self::saying(Answer::Ordinary)
    }

    /// An error in Glacier's form, `{"code","message","type"}`, without the header `x-amzn-errortype`. A status outside
    /// 100–999 becomes 500.
    pub fn error(status: u16, code: &str) -> Self {
        Self::error_saying(status, code, "emulated failure")
    }

    /// The same with a message.
    pub fn error_saying(status: u16, code: &str, message: &str) -> Self {
        let status = legal_status(status);
        Self::saying(Answer::Instead(Reply::json(status, &error_document(status, code, message))))
    }

    /// Throttling as Glacier does it: HTTP 400.
    pub fn throttled() -> Self {
        Self::error_saying(400, "ThrottlingException", "Rate exceeded")
    }

    /// An answer in full. Illegal header names and values are left out.
    pub fn respond(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let reply = Reply { status: legal_status(status), headers: HeaderMap::new(), body: body.into() };
        headers.iter().fold(Self::saying(Answer::Instead(reply)), |fault, (name, value)| fault.with_header(name, value))
    }

    /// 200 with these bytes, called JSON.
    pub fn garbage(body: impl Into<Bytes>) -> Self {
        Self::respond(200, &[("content-type", "application/json")], body)
    }

    /// A page of HTML, as a middlebox sends it.
    pub fn html(status: u16) -> Self {
        let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\n");
        Self::respond(status, &[("content-type", "text/html")], page)
    }

    /// 307 to another URL.
    pub fn redirect(url: &str) -> Self {
        Self::respond(307, &[("location", url)], Bytes::new())
    }

    /// 200 with a body that never ends: a JSON string that goes on and on, as fast as it is read.
    pub fn endless() -> Self {
        let fault = Self::garbage("{\"StatusMessage\":\"");
        Self { delivery: Delivery::Endless, ..fault }
    }

    /// No answer; the connection stays open.
    pub fn never() -> Self {
        Self::saying(Answer::Never)
    }

    /// No answer; the connection is closed.
    pub fn close() -> Self {
        Self::saying(Answer::Close { reset: false })
    }

    /// No answer; the connection is reset (RST).
    pub fn reset() -> Self {
        Self::saying(Answer::Close { reset: true })
    }

    /// The ordinary answer, this long after the request.
    pub fn delay(duration: Duration) -> Self {
        Self::pass().after(duration)
    }

    /// The ordinary answer, its body in portions; see [`dripping`](Self::dripping).
    pub fn drip(bytes: usize, every: Duration) -> Self {
        Self::pass().dripping(bytes, every)
    }

    /// The ordinary answer with its body cut off; see [`cut_after`](Self::cut_after).
    pub fn cut(bytes: usize) -> Self {
        Self::pass().cut_after(bytes)
    }

    /// The ordinary answer; then the connection, promised to be kept alive, is closed.
    pub fn close_idle() -> Self {
        Self { close_after: true, ..Self::pass() }
    }

    /// Headers come this long after the request (or after the gate). The answer is made when the request arrives: a
    /// delayed answer is an old one.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay: Some(delay), ..self }
    }

    /// The answer, made when the request arrives, waits behind a gate.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// The body comes `bytes` at a time, every so often, the first portion after the first pause.
    #[must_use]
    pub fn dripping(self, bytes: usize, every: Duration) -> Self {
        Self { delivery: Delivery::Drip { bytes: bytes.max(1), every }, ..self }
    }

    /// The whole length is promised (at least one byte more than comes), this many bytes are sent, and the connection is
    /// closed. They fit into the socket's buffer if they are fewer than some ten thousand.
    #[must_use]
    pub fn cut_after(self, bytes: usize) -> Self {
        Self { delivery: Delivery::Cut { after: bytes, reset: false }, ..self }
    }

    /// As [`cut_after`](Self::cut_after), but the connection is reset (RST). The reader may then miss bytes that were sent.
    #[must_use]
    pub fn reset_after(self, bytes: usize) -> Self {
        Self { delivery: Delivery::Cut { after: bytes, reset: true }, ..self }
    }

    /// Sets a header of an answer that is not the ordinary one. An illegal name or value changes nothing.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let (Answer::Instead(reply), Ok(name), Ok(value)) =
            (&mut self.answer, HeaderName::try_from(name), HeaderValue::try_from(value))
        {
            reply.headers.insert(name, value);
        }
        self
    }

    /// Puts the error code into `x-amzn-errortype` (in the form `code:url`), where some AWS services have it.
    #[must_use]
    pub fn with_error_header(self, code: &str) -> Self {
        self.with_header("x-amzn-errortype", &format!("{code}:http://internal.amazon.com/coral/"))
    }
}

fn legal_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Delivery {
    /// The header that promises a body of `length` bytes, if the delivery wants its own.
    pub(crate) fn promise(self, length: usize) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Cut { after, .. } => Some((header::CONTENT_LENGTH, length.max(after + 1).into())),
            Self::Whole | Self::Drip { .. } | Self::Endless => None,
        }
    }
}

//! The body of an answer: a message that was ready before the call came, or what another service says.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::open_calls::Token;
use crate::proto::LengthPrefixed;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The body of an answer; by default an empty one, as of an error whose status is in the headers.
#[derive(Debug, Default)]
pub struct AnswerBody(Answer);

#[derive(Debug, Default)]
enum Answer {
    /// A message with its prefix, then the status OK.
    Message(LengthPrefixed, Token),
    Ok,
    #[default]
    Sent,
    /// An error, or what another service answers.
    Other(Body),
}

impl AnswerBody {
    /// A message, with its prefix, and the status OK. The call is open until the message is written.
    pub(super) fn ready(message: LengthPrefixed, call: Token) -> Self {
        Self(Answer::Message(message, call))
    }
}

impl From<Body> for AnswerBody {
    fn from(body: Body) -> Self {
        Self(Answer::Other(body))
    }
}

impl HttpBody for AnswerBody {
    type Data = AnswerData;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<AnswerData>, Status>>> {
        let Self(answer) = self.get_mut();
        if let Answer::Other(body) = answer {
            return Pin::new(body).poll_frame(cx).map_ok(|frame| frame.map_data(AnswerData::Other));
        }
        let (frame, next) = match mem::replace(answer, Answer::Sent) {
            Answer::Message(message, call) => {
                (Some(Frame::data(AnswerData::Ready { message, sent: 0, call })), Answer::Ok)
            }
            Answer::Ok => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                (Some(Frame::trailers(trailers)), Answer::Sent)
            }
            done @ (Answer::Sent | Answer::Other(_)) => (None, done),
        };
        *answer = next;
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Answer::Message(..) | Answer::Ok => false,
            Answer::Sent => true,
            Answer::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            // Not exact, or every answer would carry a `content-length`.
            Answer::Message(..) | Answer::Ok | Answer::Sent => SizeHint::default(),
            Answer::Other(body) => body.size_hint(),
        }
    }
}

/// A piece of an answer.
#[derive(Debug)]
pub enum AnswerData {
    /// A message that others are given as well.
    Ready {
        /// The message.
        message: LengthPrefixed,
        /// How many of its bytes have been taken.
        sent: usize,
        /// The call, which is open until this is dropped.
        call: Token,
    },
    /// Bytes of another service.
    Other(Bytes),
}

impl Buf for AnswerData {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Ready { message, sent, .. } => &message.as_bytes()[*sent..],
            Self::Other(bytes) => bytes,
        }
    }

    /// Panics, as `Buf` asks, when there are fewer.
    fn advance(&mut self, count: usize) {
        match self {
            Self::Ready { message, sent, .. } => {
                assert!(count <= message.as_bytes().len() - *sent, "there are not {count} bytes left");
                *sent += count;
            }
            Self::Other(bytes) => bytes.advance(count),
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match self {
            Self::Ready { .. } => {
                let bytes = Bytes::copy_from_slice(&self.chunk()[..length]);
                self.advance(length);
                bytes
            }
            Self::Other(bytes) => bytes.copy_to_bytes(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::proto::v1::DescribeJobRequest;

    fn message() -> LengthPrefixed {
        // A field of one byte: tag, length, byte.
        LengthPrefixed::of(&DescribeJobRequest { vault_name: "v".to_owned(), ..DescribeJobRequest::default() })
    }

    const BYTES: [u8; 8] = *b"\0\0\0\0\x03\x12\x01v";

    #[tokio::test]
    async fn an_answer_is_its_message_and_then_ok() {
        let body = AnswerBody::ready(message(), Token::default());
        assert!(!body.is_end_stream() && body.size_hint().exact().is_none());
        let all = body.collect().await.unwrap();
        assert_eq!(all.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(all.to_bytes(), BYTES[..]);
    }

    #[tokio::test]
    async fn what_another_service_says_is_passed_on() {
        let inner = Body::new(http_body_util::Full::new(Bytes::from_static(&BYTES)));
        let all = AnswerBody::from(inner).collect().await.unwrap();
        assert_eq!(all.to_bytes(), BYTES[..]);
    }

    #[test]
    fn a_piece_gives_its_bytes_in_turn_and_never_more() {
        for mut data in [
            AnswerData::Ready { message: message(), sent: 0, call: Token::default() },
            AnswerData::Other(BYTES.to_vec().into()),
        ] {
            assert_eq!(data.remaining(), 8);
            data.advance(1);
            assert_eq!(data.chunk(), &BYTES[1..]);
            assert_eq!(data.copy_to_bytes(4), BYTES[1..5]);
            assert_eq!(data.chunk(), &BYTES[5..]);
            data.advance(3);
            assert!(!data.has_remaining() && data.chunk().is_empty());
            let beyond = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| data.advance(1)));
            assert!(beyond.is_err());
        }
    }
}

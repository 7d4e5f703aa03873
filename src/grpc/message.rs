//! A request's message as HTTP/2 carries it: a flag byte, four bytes of length, and the message ("gRPC over HTTP2",
//! Length-Prefixed-Message).
//!
//! `DescribeJob` has one message each way, so it is received here, without a codec's buffers; its answer is
//! [`AnswerBody`](super::answer_body::AnswerBody). The other services are tonic's.

use std::{future::poll_fn, pin::pin};

use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;

use super::{encoding::Encoding, status::CallError};
use crate::proto::MESSAGE_PREFIX;

/// The flags of a message.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// Receives the only message of a call, up to the end of what the caller sends. `limit` is for the message, in bytes, both as
/// it comes and decompressed.
pub(super) async fn receive<B>(body: B, encoding: Encoding, limit: usize) -> Result<Bytes, CallError<'static>>
where
    B: HttpBody<Data = Bytes>,
{
    receive_if_any(body, encoding, limit).await?.ok_or_else(incomplete)
}

/// The same of a caller who may send no message at all.
pub(super) async fn receive_if_any<B>(
    body: B,
    encoding: Encoding,
    limit: usize,
) -> Result<Option<Bytes>, CallError<'static>>
where
    B: HttpBody<Data = Bytes>,
{
    let mut body = pin!(body);
    // Nearly always the whole message comes in one piece, and is not copied.
    let mut received = Bytes::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|_| no_request("the connection failed while the message came"))?;
        // Trailers of a caller mean nothing.
        let Ok(data) = frame.into_data() else { continue };
        received = if received.is_empty() { data } else { joined(received, &data) };
        check(&received, encoding, limit)?;
    }
    match message_length(&received) {
        Some(length) if received.len() == MESSAGE_PREFIX + length => {
            let message = received.split_off(MESSAGE_PREFIX);
            if received[0] == COMPRESSED { encoding.decompress(&message, limit).map(Some) } else { Ok(Some(message)) }
        }
        None if received.is_empty() => Ok(None),
        Some(_) | None => Err(incomplete()),
    }
}

fn incomplete() -> CallError<'static> {
    no_request("there is no complete request message")
}

/// Refuses what cannot become the one message, as soon as that can be seen.
fn check(received: &[u8], encoding: Encoding, limit: usize) -> Result<(), CallError<'static>> {
    match received.first() {
        Some(&COMPRESSED) if encoding == Encoding::Identity => return Err(CallError::CompressedWithoutEncoding),
        None | Some(&(PLAIN | COMPRESSED)) => {}
        Some(_) => return Err(no_request("what comes is no gRPC message")),
    }
    match message_length(received) {
        Some(length) if length > limit => Err(CallError::TooLarge),
        Some(length) if received.len() > MESSAGE_PREFIX + length => Err(no_request("there is more than one message")),
        Some(_) | None => Ok(()),
    }
}

/// What the prefix says, once it is there.
fn message_length(received: &[u8]) -> Option<usize> {
    let [_flag, length @ ..] = received.first_chunk::<MESSAGE_PREFIX>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

fn joined(received: Bytes, more: &[u8]) -> Bytes {
    let mut all = BytesMut::from(received);
    all.extend_from_slice(more);
    all.freeze()
}

fn no_request(why: &str) -> CallError<'static> {
    CallError::NoRequest(why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    const LIMIT: usize = 16;

    fn received(pieces: &[&'static [u8]]) -> Result<Bytes, CallError<'static>> {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece)))).collect();
        receive(StreamBody::new(tokio_stream::iter(frames)), Encoding::Gzip, LIMIT).now_or_never().unwrap()
    }

    fn refused(pieces: &[&'static [u8]]) -> String {
        match received(pieces).unwrap_err() {
            CallError::NoRequest(why) => why,
            CallError::TooLarge => "too large".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_comes_whole_or_in_pieces() {
        assert_eq!(received(&[&[0, 0, 0, 0, 3, 7, 8, 9]]).unwrap(), [7, 8, 9][..]);
        assert_eq!(received(&[&[0, 0], &[], &[0, 0, 3, 7], &[8], &[9]]).unwrap(), [7, 8, 9][..]);
        assert_eq!(received(&[&[0, 0, 0, 0, 0]]).unwrap(), Bytes::new());
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        assert_eq!(refused(&[]), "there is no complete request message");
        assert_eq!(refused(&[&[0, 0, 0]]), "there is no complete request message");
        assert_eq!(refused(&[&[0, 0, 0, 0, 3, 7]]), "there is no complete request message");
        assert_eq!(refused(&[&[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0]]), "there is more than one message");
        assert_eq!(refused(&[&[2, 0, 0, 0, 1, 7]]), "what comes is no gRPC message");
        assert_eq!(refused(&[&[1, 0, 0, 0, 1, 7]]), "the message is not valid gzip");
    }

    /// D22: by its flag, before anything else of it has come.
    #[test]
    fn a_compressed_message_without_an_encoding_is_refused_by_its_flag() {
        let flag = StreamBody::new(tokio_stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[1])))]));
        let refusal = receive(flag, Encoding::Identity, LIMIT).now_or_never().unwrap().unwrap_err();
        assert!(matches!(refusal, CallError::CompressedWithoutEncoding), "{refusal:?}");
    }

    /// D2: refused by its prefix, before anything of it has come.
    #[test]
    fn a_message_above_the_limit_is_refused_by_its_prefix() {
        assert_eq!(received(&[&[0, 0, 0, 0, 16], &[1; 16]]).unwrap().len(), 16);
        assert_eq!(refused(&[&[0, 0, 0, 0, 17]]), "too large");
        assert_eq!(refused(&[&[0, 0xff, 0xff, 0xff, 0xff]]), "too large");
        assert_eq!(refused(&[&[1, 0, 0, 0, 17]]), "too large");
    }
}

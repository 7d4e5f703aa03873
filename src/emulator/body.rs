//! The body of an answer, delivered as its fault wants it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Sleep, sleep},
};

use super::fault::Delivery;

/// What an endless body goes on with.
const MORE: &[u8] = &[b'a'; 16 * 1024];

/// How a connection ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Closed as it is.
    Closed,
    /// Closed with RST.
    Reset,
    /// Closed when the answer is out.
    AfterAnswer,
}

/// Tells the connection that it ends.
pub(crate) type Endings = UnboundedSender<Ending>;

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    rest: Bytes,
    delivery: Delivery,
    pause: Option<Pin<Box<Sleep>>>,
    /// What is left to send before the cut.
    until_cut: usize,
    close_after: bool,
    endings: Endings,
}

impl AnswerBody {
    pub(crate) fn new(bytes: Bytes, delivery: Delivery, close_after: bool, endings: Endings) -> Self {
        let until_cut = match delivery {
            Delivery::Cut { after, .. } => after.min(bytes.len()),
            Delivery::Whole | Delivery::Drip { .. } | Delivery::Endless => 0,
        };
        Self { rest: bytes, delivery, pause: None, until_cut, close_after, endings }
    }

    fn rest(&mut self) -> Option<Bytes> {
        Some(std::mem::take(&mut self.rest)).filter(|rest| !rest.is_empty())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let portion = match this.delivery {
            Delivery::Whole => this.rest(),
            Delivery::Endless => Some(this.rest().unwrap_or(Bytes::from_static(MORE))),
            Delivery::Drip { .. } if this.rest.is_empty() => None,
            Delivery::Drip { bytes, every } => {
                let pause = this.pause.get_or_insert_with(|| Box::pin(sleep(every)));
                std::task::ready!(pause.as_mut().poll(cx));
                this.pause = None;
                Some(this.rest.split_to(bytes.min(this.rest.len())))
            }
            Delivery::Cut { reset, .. } if this.until_cut == 0 => {
                // The connection writes out what it has when a body makes it wait, and only then looks at this.
                let _ = this.endings.send(if reset { Ending::Reset } else { Ending::Closed });
                return Poll::Pending;
            }
            Delivery::Cut { .. } => {
                let portion = this.rest.split_to(this.until_cut);
                this.until_cut = 0;
                Some(portion)
            }
        };
        Poll::Ready(portion.map(|portion| Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        match self.delivery {
            Delivery::Whole | Delivery::Drip { .. } => self.rest.is_empty(),
            Delivery::Cut { .. } | Delivery::Endless => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.delivery {
            Delivery::Whole | Delivery::Drip { .. } => SizeHint::with_exact(self.rest.len() as u64),
            // The length of a body that will be cut is promised by a header; an endless one has none.
            Delivery::Cut { .. } | Delivery::Endless => SizeHint::default(),
        }
    }
}

/// The server drops a body as soon as it has taken the last of it.
impl Drop for AnswerBody {
    fn drop(&mut self) {
        if self.close_after {
            let _ = self.endings.send(Ending::AfterAnswer);
        }
    }
}

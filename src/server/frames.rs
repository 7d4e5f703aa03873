//! Where the frames of a connection begin and end, and how many of them asked for nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The length of the client's preface, which comes before the first frame.
const PREFACE: u32 = 24;
const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;

/// Control frames that come with an honest call: window updates, a ping to measure the bandwidth and an answer to ours,
/// a message in pieces. Five is what grpcio needs.
const CONTROL_FRAMES_PER_CALL: u32 = 10;
/// For how long a ration lasts.
const RATIONED: Duration = Duration::from_secs(1);

/// How many frames a client may send in a second that are no calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ration {
    /// Frames that ask for nothing (all but `HEADERS`, `RST_STREAM` and the end of a request), beside ten for each call.
    pub(super) control_frames: u32,
    /// `RST_STREAM`. Calls earn none: a rapid reset is as many calls as resets.
    pub(super) resets: u32,
}

/// More frames than the ration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flood {
    #[error("a flood of frames that ask for nothing")]
    ControlFrames,
    #[error("a flood of resets")]
    Resets,
}

/// Follows the frames through the bytes of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    head_filled: usize,
    payload_left: u32,
    /// HEADERS came without `END_HEADERS`.
    block_is_open: bool,
    finished: u64,
    ration: Ration,
    control_frames_left: u32,
    resets_left: u32,
    rationed_at: Instant,
}

impl Frames {
    pub(super) fn new(ration: Ration) -> Self {
        Self {
            head: [0; HEAD],
            head_filled: 0,
            payload_left: PREFACE,
            block_is_open: false,
            finished: 0,
            ration,
            control_frames_left: ration.control_frames,
            resets_left: ration.resets,
            rationed_at: Instant::now(),
        }
    }

    /// Frames and header blocks that are complete; the preface counts as one.
    pub(super) fn finished(&self) -> u64 {
        self.finished
    }

    /// Whether the client has begun something that it has not finished. The first frame is owed from the beginning.
    pub(super) fn is_owed_more(&self) -> bool {
        self.payload_left > 0 || self.head_filled > 0 || self.block_is_open || self.finished < 2
    }

    /// Takes note of bytes that were read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let here = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                bytes = &bytes[here..];
                self.payload_left -= u32::try_from(here).unwrap_or(self.payload_left);
            } else {
                let here = bytes.len().min(HEAD - self.head_filled);
                let (now, later) = bytes.split_at(here);
                self.head[self.head_filled..][..here].copy_from_slice(now);
                self.head_filled += here;
                bytes = later;
                if self.head_filled < HEAD {
                    return Ok(());
                }
                self.head_filled = 0;
                self.begin()?;
            }
            if self.payload_left == 0 && !self.block_is_open {
                self.finished += 1;
            }
        }
        Ok(())
    }

    /// A frame's head is complete.
    fn begin(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload_left = u32::from_be_bytes([0, a, b, c]);
        match kind {
            HEADERS => {
                self.block_is_open = flags & END_HEADERS == 0;
                let earned = self.control_frames_left.saturating_add(CONTROL_FRAMES_PER_CALL);
                self.control_frames_left = earned.min(self.ration.control_frames);
                return Ok(());
            }
            RST_STREAM => return self.spend(|frames| &mut frames.resets_left, Flood::Resets),
            DATA if flags & END_STREAM != 0 => return Ok(()),
            CONTINUATION => self.block_is_open = flags & END_HEADERS == 0,
            _ => {}
        }
        self.spend(|frames| &mut frames.control_frames_left, Flood::ControlFrames)
    }

    /// The clock is only read when a ration is used up.
    fn spend(&mut self, left: impl Fn(&mut Self) -> &mut u32, flood: Flood) -> Result<(), Flood> {
        if *left(self) == 0 {
            if self.rationed_at.elapsed() < RATIONED {
                return Err(flood);
            }
            self.rationed_at = Instant::now();
            self.control_frames_left = self.ration.control_frames;
            self.resets_left = self.ration.resets;
        }
        *left(self) = left(self).saturating_sub(1);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(in super::super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    pub(in super::super) const PING: u8 = 6;

    const RATION: Ration = Ration { control_frames: 100, resets: 20 };

    pub(in super::super) fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0);
        frame
    }

    fn open() -> Frames {
        let mut frames = Frames::new(RATION);
        frames.read(PREFACE).unwrap();
        assert!(frames.is_owed_more(), "settings");
        frames.read(SETTINGS).unwrap();
        assert!(!frames.is_owed_more());
        frames
    }

    fn call() -> Vec<u8> {
        [frame(HEADERS, END_HEADERS, 30), frame(DATA, END_STREAM, 20)].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn wherever_the_bytes_are_cut_the_frames_are_the_same() {
        let block = [frame(HEADERS, 0, 3), frame(CONTINUATION, 0, 0), frame(CONTINUATION, END_HEADERS, 2)].concat();
        let bytes = [PREFACE, SETTINGS, &block, &frame(DATA, 0, 0), &frame(DATA, END_STREAM, 200)].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::new(RATION);
            for piece in bytes.chunks(size) {
                frames.read(piece).unwrap();
            }
            assert_eq!((frames.finished(), frames.is_owed_more()), (5, false), "in pieces of {size}");
            frames.read(&[0]).unwrap();
            assert!(frames.is_owed_more());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_frame_that_asks_for_nothing_is_rationed() {
        let settings = SETTINGS.to_vec();
        for idle in [settings, frame(PING, 0, 8), frame(DATA, 0, 0), frame(DATA, 0, 1), frame(2, 0, 5), frame(99, 0, 0)]
        {
            let mut frames = open();
            // One was for the settings at the beginning.
            frames.read(&idle.repeat(99)).unwrap();
            assert_eq!(frames.read(&idle), Err(Flood::ControlFrames), "{idle:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_honest_client_earns_what_it_needs_by_its_calls() {
        let mut frames = open();
        for _ in 0..10_000 {
            frames.read(&call()).unwrap();
            frames.read(&[frame(8, 0, 4).repeat(2), frame(PING, 0, 8).repeat(3)].concat()).unwrap();
        }
        // And no more: what has been earned is not kept for a flood.
        frames.read(&frame(PING, 0, 8).repeat(95)).unwrap();
        assert_eq!(frames.read(&frame(PING, 0, 8)), Err(Flood::ControlFrames));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_earn_no_resets() {
        let mut frames = open();
        let reset = [call(), frame(RST_STREAM, 0, 4)].concat();
        frames.read(&reset.repeat(20)).unwrap();
        assert_eq!(frames.read(&reset), Err(Flood::Resets));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ration_is_for_a_second() {
        let mut frames = open();
        for _ in 0..5 {
            frames.read(&frame(RST_STREAM, 0, 4).repeat(20)).unwrap();
            tokio::time::advance(RATIONED).await;
        }
        frames.read(&frame(RST_STREAM, 0, 4).repeat(20)).unwrap();
        tokio::time::advance(RATIONED / 2).await;
        assert_eq!(frames.read(&frame(RST_STREAM, 0, 4)), Err(Flood::Resets));
    }
}

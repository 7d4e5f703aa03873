//! HTTP/2 frames, as far as a load generator needs them (RFC 9113, section 4 and 6).

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before a frame's payload.
pub(crate) const HEAD: usize = 9;
/// The largest window there is.
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// A connection's window until something else is said.
pub(crate) const FIRST_WINDOW: u32 = 65_535;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
/// Flags that we neither send nor understand: PADDED and PRIORITY.
pub(crate) const UNUSUAL: u8 = 0x8 | 0x20;

/// Types of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            3 => Self::Reset,
            4 => Self::Settings,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            _ => Self::Other,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Other => 0xff,
        }
    }
}

/// One received frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The first frame of `bytes`, if it is complete, and how many bytes it takes.
pub(crate) fn first(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let payload = rest.get(..length)?;
    let stream = number(&head[5..]) & LARGEST_WINDOW;
    Some((Frame { kind: Kind::of(head[3]), flags: head[4], stream, payload }, HEAD + length))
}

/// Four bytes as a number; 0 for fewer.
pub(crate) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Appends a frame's head.
pub(crate) fn head(out: &mut Vec<u8>, length: usize, kind: Kind, flags: u8, stream: u32) {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind.byte(), flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Changes the stream of the frame that `frame` begins with.
pub(crate) fn set_stream(frame: &mut [u8], stream: u32) {
    frame[5..HEAD].copy_from_slice(&stream.to_be_bytes());
}

/// Appends a wider window for the connection.
pub(crate) fn widen(out: &mut Vec<u8>, by: u32) {
    head(out, 4, Kind::WindowUpdate, 0, 0);
    out.extend_from_slice(&by.to_be_bytes());
}

/// What opens a connection: no pushes, and windows that never fill.
pub(crate) fn opening() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    head(&mut out, 12, Kind::Settings, 0, 0);
    for (setting, value) in [(2_u16, 0), (4, LARGEST_WINDOW)] {
        out.extend_from_slice(&setting.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    widen(&mut out, LARGEST_WINDOW - FIRST_WINDOW);
    out
}

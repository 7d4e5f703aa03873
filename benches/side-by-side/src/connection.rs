//! One connection of the load generator: bytes in, bytes out, and which question each stream carries.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use loona_hpack::Decoder;
use mio::{Interest, Registry, Token, net::TcpStream};
use side_by_side::Outcome;

use crate::{
    expected::Expected,
    frames::{self, ACK, END_HEADERS, END_STREAM, Frame, Kind, UNUSUAL},
    question::Question,
};

const READ_SIZE: usize = 256 * 1024;
/// A power of two well above the streams that any server allows at once.
const PLACES: usize = 4096;
/// So many header blocks are decoded: each connection's first, because each depends on those before it. Later answers are
/// compared in their DATA, and must end as the first ones did. More would cost a load of short questions on many
/// connections more than the server that it asks.
const DECODED: usize = 256;

/// What all connections of a load share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) question: Question,
    pub(crate) expected: Expected,
    pub(crate) scratch: Vec<u8>,
    pub(crate) answered: u64,
    /// From the moment at which a question was due to its answer, where asked for.
    pub(crate) latencies: Option<Vec<Duration>>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    stream: u32,
    key: u32,
    due: Instant,
    received: usize,
    /// Bytes of DATA there must be; 0 before the first.
    wanted: usize,
}

pub(crate) struct Connection {
    address: SocketAddr,
    count: usize,
    socket: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    next_stream: u32,
    places: Vec<Option<Place>>,
    pub(crate) in_flight: usize,
    /// What the server still lets us send.
    window: i64,
    /// What we have received and not given back.
    owed: u32,
    going_away: bool,
    headers: Decoder<'static>,
    to_decode: usize,
}

impl Connection {
    /// One of `count` connections of a load.
    pub(crate) fn open(address: SocketAddr, count: usize, registry: &Registry, token: Token) -> Outcome<Self> {
        let mut this = Self {
            address,
            socket: dial(address, registry, token)?,
            input: vec![0; READ_SIZE],
            filled: 0,
            output: frames::opening(),
            written: 0,
            next_stream: 1,
            places: vec![None; PLACES],
            in_flight: 0,
            window: i64::from(frames::FIRST_WINDOW),
            owed: 0,
            going_away: false,
            headers: Decoder::new(),
            count,
            to_decode: DECODED.div_ceil(count),
        };
        this.flush()?;
        Ok(this)
    }

    /// Replaces a connection that was told to go away, once all its questions are answered.
    pub(crate) fn renew(&mut self, registry: &Registry, token: Token) -> Outcome<()> {
        if self.going_away && self.in_flight == 0 {
            *self = Self::open(self.address, self.count, registry, token)?;
        }
        Ok(())
    }

    /// Whether another question of this size may be sent.
    pub(crate) fn has_room(&self, payload: usize) -> bool {
        !self.going_away && self.window >= i64::try_from(payload).unwrap_or(i64::MAX)
    }

    /// Puts a question into the output.
    pub(crate) fn ask(&mut self, shared: &Shared, key: u32, due: Instant) -> Outcome<()> {
        let stream = self.next_stream;
        let place = &mut self.places[(stream as usize / 2) % PLACES];
        if place.is_some() {
            return Err("a stream was never answered".into());
        }
        *place = Some(Place { stream, key, due, received: 0, wanted: 0 });
        shared.question.write(&mut self.output, stream == 1, stream, key);
        self.window -= i64::try_from(shared.question.payload())?;
        self.next_stream += 2;
        self.in_flight += 1;
        Ok(())
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what there is and takes it in.
    pub(crate) fn receive(&mut self, shared: &mut Shared) -> Outcome<()> {
        loop {
            let room = self.input.len() - self.filled;
            let count = match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) if self.going_away && self.in_flight == 0 => return Ok(()),
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.filled += count;
            self.take_in(shared)?;
            // A short read has emptied the socket; what comes later is another event.
            if count < room {
                return Ok(());
            }
        }
    }

    fn take_in(&mut self, shared: &mut Shared) -> Outcome<()> {
        let now = Instant::now();
        // Out of the way, so that a frame may borrow from it.
        let mut input = std::mem::take(&mut self.input);
        let mut start = 0;
        while let Some((frame, length)) = frames::first(&input[start..self.filled]) {
            self.frame(frame, shared, now)?;
            start += length;
        }
        input.copy_within(start..self.filled, 0);
        self.filled -= start;
        self.input = input;
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>, shared: &mut Shared, now: Instant) -> Outcome<()> {
        match frame.kind {
            Kind::Data => {
                self.owed += u32::try_from(frame.payload.len())?;
                if self.owed > frames::LARGEST_WINDOW / 2 {
                    frames::widen(&mut self.output, self.owed);
                    self.owed = 0;
                }
                let place = self.place(frame)?;
                place.wanted = shared.expected.check(place.key, place.received, frame.payload, &mut shared.scratch)?;
                place.received += frame.payload.len();
                if frame.is(END_STREAM) {
                    self.answered(frame, false, shared, now)?;
                }
            }
            Kind::Headers => {
                if !frame.is(END_HEADERS) {
                    return Err("header blocks in pieces".into());
                }
                if self.to_decode > 0 {
                    self.to_decode -= 1;
                    self.decode(frame, &shared.expected)?;
                }
                if frame.is(END_STREAM) {
                    self.answered(frame, true, shared, now)?;
                }
            }
            Kind::Settings if !frame.is(ACK) => {
                frames::head(&mut self.output, 0, Kind::Settings, ACK, 0);
            }
            Kind::Ping if !frame.is(ACK) => {
                frames::head(&mut self.output, frame.payload.len(), Kind::Ping, ACK, 0);
                self.output.extend_from_slice(frame.payload);
            }
            Kind::WindowUpdate if frame.stream == 0 => self.window += i64::from(frames::number(frame.payload)),
            Kind::GoAway if frames::number(frame.payload.get(4..).unwrap_or_default()) == 0 => self.going_away = true,
            // Where the server does not read a request to its end, it says so after the answer.
            Kind::Reset if frames::number(frame.payload) == 0 => {}
            Kind::Reset | Kind::GoAway => return Err(format!("refused by the server: {frame:?}").into()),
            Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Other => {}
        }
        Ok(())
    }

    fn place(&mut self, frame: Frame<'_>) -> Outcome<&mut Place> {
        let place = self.places[(frame.stream as usize / 2) % PLACES].as_mut();
        match place.filter(|place| place.stream == frame.stream) {
            Some(place) if frame.flags & UNUSUAL == 0 => Ok(place),
            _ => Err(format!("a frame that nobody waits for: {frame:?}").into()),
        }
    }

    fn answered(&mut self, frame: Frame<'_>, trailers: bool, shared: &mut Shared, now: Instant) -> Outcome<()> {
        let place = *self.place(frame)?;
        if place.received != place.wanted || place.wanted == 0 || trailers != shared.expected.trailers {
            return Err(format!("an answer of {} bytes instead of {}: {frame:?}", place.received, place.wanted).into());
        }
        self.places[(frame.stream as usize / 2) % PLACES] = None;
        self.in_flight -= 1;
        shared.answered += 1;
        if let Some(latencies) = &mut shared.latencies {
            latencies.push(now.saturating_duration_since(place.due));
        }
        Ok(())
    }

    /// The header lines before the DATA, or the trailers after it.
    fn decode(&mut self, frame: Frame<'_>, expected: &Expected) -> Outcome<()> {
        let lines = self.headers.decode(frame.payload).map_err(|error| format!("{error:?}"))?;
        let has = |name: &str, start: &str| {
            lines.iter().any(|(n, value)| n.as_slice() == name.as_bytes() && value.starts_with(start.as_bytes()))
        };
        let is_right = if frame.is(END_STREAM) {
            has("grpc-status", "0")
        } else {
            expected.headers.iter().all(|(name, start)| has(name, start))
        };
        if is_right {
            return Ok(());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
        Err(format!("wrong header lines: {lines:?}").into())
    }
}

fn dial(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::connect(address)?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let mut socket = TcpStream::from_std(socket);
    registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(socket)
}

"""HTTP/2 frames made by hand: a client that obeys no rule unless a test makes it."""

import contextlib
import socket
import struct
import time
from typing import NamedTuple

import hpack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DESCRIBE_JOB = "/glacier.jobs.v1.JobService/DescribeJob"
# Long enough for anything on loopback, even on a busy machine.
PATIENCE = 20


class Frame(NamedTuple):
    """A frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind, flags=0, stream=0, payload=b""):
    """The bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def message(body, *, compressed=False, length=None):
    """A gRPC message; `length` may lie."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


class Wire:
    """A connection; the preface and empty SETTINGS are sent unless told otherwise."""

    def __init__(self, address, opening=PREFACE + frame(SETTINGS), receive_buffer=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._received = b""
        self.send(opening)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *pieces):
        self.socket.sendall(b"".join(pieces))

    def flood(self, bytes_, seconds=PATIENCE):
        """Sends all of it, or as much as the peer takes before it closes the connection; whether it closed."""
        self.socket.settimeout(seconds)
        try:
            self.socket.sendall(bytes_)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def block(self, *extra, path=DESCRIBE_JOB):
        """The header block of a call. Must be sent in the order in which it was made."""
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "gateway"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *extra,
        ]
        return self._encoder.encode(headers)

    def call(self, stream, body=None, *extra, path=DESCRIBE_JOB):
        """The frames of a whole call."""
        body = message(b"") if body is None else body
        return frame(HEADERS, END_HEADERS, stream, self.block(*extra, path=path)) + frame(DATA, END_STREAM, stream, body)

    def frames(self, seconds=PATIENCE):
        """The frames that come until the peer closes the connection; an error if it takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            while len(self._received) >= 9:
                length = int.from_bytes(self._received[:3], "big")
                if len(self._received) < 9 + length:
                    break
                head, payload = self._received[:9], self._received[9 : 9 + length]
                self._received = self._received[9 + length :]
                yield Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFF_FFFF, payload)
            left = deadline - time.monotonic()
            assert left > 0, f"the connection is still open after {seconds} s"
            self.socket.settimeout(left)
            try:
                received = self.socket.recv(65536)
            except ConnectionResetError:
                return
            except TimeoutError:
                continue
            if not received:
                return
            self._received += received

    def wait_for(self, kind, stream=None, seconds=PATIENCE):
        """The next frame of a kind, perhaps of one stream."""
        for found in self.frames(seconds):
            if found.kind == HEADERS:
                found = found._replace(payload=dict(self._decoder.decode(found.payload)))
            if found.kind == kind and stream in (None, found.stream):
                return found
        raise AssertionError(f"closed before a frame of kind {kind} came")

    def answers(self, streams, seconds=PATIENCE):
        """The last headers of each stream: the trailers, or the only ones."""
        last = {}
        while missing := set(streams) - set(last):
            found = self.wait_for(HEADERS, seconds=seconds)
            if found.stream in missing and found.flags & END_STREAM:
                last[found.stream] = found.payload
        return last

    def answer(self, stream, seconds=PATIENCE):
        """The same of one stream."""
        return self.answers([stream], seconds)[stream]

    def settle(self):
        """Returns once everything that was sent has been looked at."""
        self.send(frame(PING, payload=b"settled?"))
        while self.wait_for(PING).payload != b"settled?":
            pass

    def wait_until_closed(self, seconds=PATIENCE):
        """All frames until then."""
        return list(self.frames(seconds))

    def is_closed(self):
        """Whether the peer has closed it, without waiting; frames that have come are lost."""
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            try:
                while self.socket.recv(65536):
                    pass
            except ConnectionError:
                pass
            return True
        return False


def settings_of(found):
    """What a SETTINGS frame says, by identifier."""
    return dict(struct.iter_unpack(">HI", found.payload))

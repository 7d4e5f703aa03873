"""A Glacier with prepared answers: an HTTP listener in this process that records what the gateway sends."""

import contextlib
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import canary

ACCOUNT = "123456789012"
# A job that ended an hour ago: old enough to be believed, and young enough that Glacier would still know it.
CREATED = f"{datetime.now(UTC) - timedelta(hours=5):%Y-%m-%dT%H:%M:%S}.005Z"
COMPLETED = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}.910Z"


class Request(NamedTuple):
    """A request as it came over the wire; `headers` is case-insensitive."""

    method: str
    path: str
    headers: object


class Answer(NamedTuple):
    """A prepared answer."""

    status: int
    body: bytes


def describes(document):
    """The answer of DescribeJob with this description."""
    return Answer(200, json.dumps(document).encode())


def fails(status, code, message):
    """An error as Glacier words it."""
    return Answer(status, json.dumps({"code": code, "message": message, "type": "Client"}).encode())


def archive_job(vault, job, **members):
    """A finished archive retrieval; `members` replace or add members of the description."""
    return {
        "Action": "ArchiveRetrieval",
        "ArchiveId": "archive-of-the-interop-suite",
        "ArchiveSHA256TreeHash": "5a" * 32,
        "ArchiveSizeInBytes": 8388608,
        "Completed": True,
        "CompletionDate": COMPLETED,
        "CreationDate": CREATED,
        "InventoryRetrievalParameters": None,
        "InventorySizeInBytes": None,
        "JobDescription": None,
        "JobId": job,
        "RetrievalByteRange": "0-8388607",
        "SHA256TreeHash": "5a" * 32,
        "SNSTopic": None,
        "StatusCode": "Succeeded",
        "StatusMessage": "Succeeded",
        "Tier": "Standard",
        "VaultARN": f"arn:aws:glacier:us-east-1:{ACCOUNT}:vaults/{vault}",
        **members,
    }


def job_in(path):
    """The vault and the job that a DescribeJob path names."""
    _, _account, _, vault, _, job = path.split("/")
    return vault, job


class PreparedGlacier:
    """The listener. `answer(path)` makes each answer; while `hold()` is in force, requests arrive and wait."""

    def __init__(self):
        self.requests = []
        self.answer = lambda path: describes(archive_job(*job_in(path)))
        self._changed = threading.Condition()
        self._open = threading.Event()
        self._open.set()
        glacier = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else the body waits until the head is acknowledged, 40 ms.
            disable_nagle_algorithm = True

            def do_GET(self):
                glacier._record(Request(self.command, self.path, self.headers))
                glacier._open.wait()
                answer = glacier.answer(self.path)
                # A caller that is gone by now is not this listener's concern.
                with contextlib.suppress(ConnectionError):
                    self.send_response(answer.status)
                    self.send_header("x-amzn-RequestId", "request-of-the-interop-suite")
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _record(self, request):
        canary.mark_request(request.headers)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def hold(self):
        """From now on requests are recorded, and answered after `release()`."""
        self._open.clear()

    def release(self):
        """Answers what is held."""
        self._open.set()

    def wait_for_requests(self, count, seconds=10):
        """Returns once `count` requests have arrived."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, seconds)
        assert arrived, f"{len(self.requests)} of {count} requests arrived within {seconds} s"

    def close(self):
        self.release()
        self._server.shutdown()
        self._server.server_close()

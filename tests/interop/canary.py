"""What must never be said: secrets, in any spelling, in whatever a process prints (tests/FAULTS.md, P8).

Every gateway of this suite runs at trace level unless a test says otherwise, and all that any process has printed is looked
through when it has ended: for the AWS keys, for what the suite has marked since it began (session tokens, private keys), and
for every signature that a prepared Glacier has got.
"""

import base64
import re
from urllib.parse import quote

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

_marked = {ACCESS_KEY, SECRET_KEY}
# Apart, since there are thousands of them.
_signatures = set()

# How AWS spells a signature in a header or an URL; of those that no prepared Glacier got.
_HEADER = re.compile(r"Signature=[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


def mark(secret):
    """From now on this must not be said by any process."""
    assert len(secret) >= 8, "so short a secret is said by accident"
    _marked.add(secret)
    return secret


def mark_key(pem):
    """The same of a private key: no line of it, and not the whole in one line."""
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    for secret in [*(line for line in lines if len(line) >= 32), "".join(lines)]:
        mark(secret)
    return pem


def mark_request(headers):
    """The same of the signature and the session token of a request that Glacier got."""
    if found := _SIGNATURE.search(headers.get("Authorization", "").rpartition("Signature=")[2]):
        _signatures.add(found[0])
    if token := headers.get("x-amz-security-token"):
        mark(token)


def spellings(secret):
    """The secret itself, and as URLs, JSON and HTTP's basic authentication would spell it."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret, safe=""), secret.replace("/", "\\/"), encoded}


def said(text):
    """Which secrets are in the text."""
    marked = {secret for secret in _marked if any(spelling in text for spelling in spellings(secret))}
    return marked | _signatures.intersection(_SIGNATURE.findall(text)) | set(_HEADER.findall(text))


def signatures():
    """How many signatures would be recognized."""
    return len(_signatures)

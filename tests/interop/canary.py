"""What must never be said: secrets, in any spelling, in whatever a process prints (faults.md, P8).

Every gateway of this suite runs at trace level unless a test says otherwise, and all that any process has printed is looked
through when it has ended.
"""

import base64
from urllib.parse import quote

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def spellings(secret):
    """The secret itself, and as URLs, JSON and HTTP's basic authentication would spell it."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret, safe=""), secret.replace("/", "\\/"), encoded}


def said(text, secrets=()):
    """Which of the suite's secrets, and of these, are in the text."""
    return {secret for secret in (ACCESS_KEY, SECRET_KEY, *secrets) if any(s in text for s in spellings(secret))}


def signatures(requests):
    """The signatures and session tokens of requests that Glacier got."""
    for request in requests:
        yield request.headers["Authorization"].rpartition("Signature=")[2]
        if token := request.headers["x-amz-security-token"]:
            yield token

"""Authorities of the suite's own, and files with what they issue. Every private key is marked as a secret."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import canary

DAY = timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


class Authority:
    """Signs certificates for servers and callers."""

    def __init__(self, name):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = self._build(self._name, self._key, [(constraints, True)])
        self.certificate = pem_of(self._certificate)

    def pair(self, *names):
        """A certificate that is good today for these names: DNS names, or URIs."""
        key = ec.generate_private_key(ec.SECP256R1())
        kinds = [x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of the interop suite")])
        certificate = self._build(subject, key, [(x509.SubjectAlternativeName(kinds), False)])
        told = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(pem_of(certificate), canary.mark_key(told.decode()))

    def _build(self, subject, key, extensions):
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + DAY)
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        return builder.sign(self._key, hashes.SHA256())


def pem_of(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()

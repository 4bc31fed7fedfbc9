"""Certificates of the page's server: given ones, or one that this machine signs for itself."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from search_app.errors import ServeError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

OWNER_ONLY = 0o600
DAYS = 397
"""browsers refuse certificates that are valid for longer"""
RENEW = timedelta(days=30)
PROBE = ("192.0.2.1", 9)
"""an address for documentation (RFC 5737); no packet is sent to learn by which address this machine would"""


@dataclass(frozen=True)
class Tls:
    """The files of a certificate and of its private key, both PEM."""

    certificate: Path
    key: Path


def open_tls(
    certificate: Path | None, key: Path | None, *, self_signed: bool, home: Path, say: Callable[[str], None]
) -> Tls | None:
    """Return the files to serve HTTPS with, None for HTTP. Raises `ServeError` for files that do not fit."""
    if self_signed:
        if certificate or key:
            raise ServeError("Give either --self-signed or --certificate and --key.")
        tls = self_signed_tls(home)
        say(f"The certificate's SHA-256 fingerprint is {fingerprint(tls.certificate)}; browsers ask once.")
        return tls
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ServeError("HTTPS needs both --certificate and --key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise ServeError(
            f"{certificate} and {key} are no certificate and key without a password, in PEM ({reason})."
        ) from error
    return Tls(certificate, key)


def self_signed_tls(home: Path) -> Tls:
    """Return the certificate of a GLIMPSE_HOME, made on first use and again before it ends."""
    folder = home / "tls"
    tls = Tls(folder / "certificate.pem", folder / "key.pem")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not tls.key.exists() or not _is_good(tls.certificate):
            _make(tls)
    except OSError as error:
        raise ServeError(f"The certificate cannot be kept in {folder} ({error.strerror}).") from error
    return tls


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 of a certificate as browsers show it."""
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest())


def _is_good(path: Path) -> bool:
    """Say whether a certificate is valid for a while, and for today's names of this machine."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    names, addresses = _names()
    said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    said_addresses = [str(each) for each in said.get_values_for_type(x509.IPAddress)]
    said_names = said.get_values_for_type(x509.DNSName)
    is_for_us = (sorted(said_names), sorted(said_addresses)) == (names, addresses)
    return is_for_us and found.not_valid_after_utc - RENEW > datetime.now(UTC)


def _make(tls: Tls) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(tls.key, pem)
    _write(tls.certificate, _sign(key).public_bytes(serialization.Encoding.PEM))


def _sign(key: EllipticCurvePrivateKey) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    names, addresses = _names()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Glimpse on this machine")])
    now = datetime.now(UTC)
    alternatives = [
        *(x509.DNSName(each) for each in names),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _names() -> tuple[list[str], list[str]]:
    """Return this machine's names and the addresses that others reach it by, each list sorted."""
    host = socket.gethostname().partition(".")[0]
    names = {"localhost", host, f"{host}.local", socket.getfqdn()}
    addresses = {"127.0.0.1", "::1"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(PROBE)
            addresses.add(probe.getsockname()[0])
        except OSError:  # no network
            pass
    return sorted(each for each in names if each.isascii() and 0 < len(each) < 64), sorted(addresses)


def _write(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "wb") as file:
        file.write(data)
    part.replace(path)

"""Certificates for tests: an authority of their own, and servers that show its certificates, or worse ones."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

AUTHORITY = trustme.CA()


def server_context(identity: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
    """Return what a server needs to show a certificate of the tests' authority for that host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    not_after = datetime.now(UTC) - timedelta(days=1) if expired else None
    AUTHORITY.issue_cert(
        identity, not_before=datetime(2000, 1, 1, tzinfo=UTC), not_after=not_after
    ).configure_cert(context)
    return context


def self_signed_context(tmp_path: Path) -> ssl.SSLContext:
    """Return what a server needs to show a certificate that nobody but itself vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    path = tmp_path / "self-signed.pem"
    path.write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    context.load_cert_chain(path)
    return context


def trust_authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trust the tests' authority as a user would: by the variable that OpenSSL reads."""
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))

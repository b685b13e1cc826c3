"""Attached files: in the mail from the moment it is made, under names that every system can save."""

from __future__ import annotations

import sys
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from app.kit.errors import InvalidInputError
from app.kit.mail.attachments import Attachment, Source, attach
from app.kit.mail.headers import WIRE_POLICY
from tests.kit.wire import assert_legal, read

ROOM_BYTES = 10_000


def write(*sources: Source) -> bytes:
    mail = EmailMessage(policy=WIRE_POLICY)
    mail["Subject"] = "Report"
    mail.set_content("text")
    mail.add_alternative("<p>text</p>", subtype="html")
    attach(mail, sources, ROOM_BYTES)
    return mail.as_bytes()


def parts(source: bytes) -> list[tuple[str | None, str, bytes]]:
    return [
        (part.get_filename(), part.get_content_type(), bytes(part.get_payload(decode=True)))
        for part in read(source).iter_attachments()
    ]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(bytes(range(256)) * 3)
    return path


def test_files_are_in_the_mail_from_the_start(tmp_path: Path, report: Path) -> None:
    (tmp_path / "sales.png").write_bytes(b"PNG\n")
    (tmp_path / "empty").touch()
    source = write(
        str(report), tmp_path / "sales.png", Attachment(tmp_path / "empty", "Überblick.txt"), report
    )
    content = report.read_bytes()
    report.unlink()
    assert parts(source) == [
        ("report.pdf", "application/pdf", content),
        ("sales.png", "image/png", b"PNG\n"),
        ("Überblick.txt", "text/plain", b""),
        ("report.pdf", "application/pdf", content),
    ]
    assert [part.get_content_type() for part in read(source).walk()][:4] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html",
    ]  # fmt: skip
    assert_legal(source)


def test_path_counts_from_where_the_process_stands(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(report.parent)
    assert parts(write("report.pdf"))[0][2] == report.read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent.pdf", "absent.pdf' cannot be attached: No such file or directory, expected a file"),
        (".", "cannot be attached: (Is a directory|Permission denied)"),
        ("nul\0.pdf", "cannot be attached: embedded null byte"),
        ("large.bin", "there is room for 10000 bytes only: put a link to what is large"),
    ],
)
def test_what_is_no_readable_file_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "large.bin").write_bytes(b"x" * (ROOM_BYTES + 1))
    with pytest.raises(InvalidInputError, match=expected) as caught:
        write(f"{tmp_path}/{name}")
    assert caught.value.field == "attachments"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no device files")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_device_is_refused_and_not_read_for_ever(path: str) -> None:
    with pytest.raises(InvalidInputError, match="it is not a regular file"):
        write(path)


def test_files_are_bounded_together(tmp_path: Path) -> None:
    half = tmp_path / "half.bin"
    half.write_bytes(b"x" * (ROOM_BYTES // 2))
    write(half, half)
    with pytest.raises(InvalidInputError, match="there is room for 0 bytes only"):
        write(half, half, half)


@pytest.mark.parametrize(
    "content_type", ["text/html\r\nBcc: eve@b.example", "pdf", "a/b; name=x", "é/b", "/"]
)
def test_type_that_is_none_is_refused(report: Path, content_type: str) -> None:
    with pytest.raises(InvalidInputError, match="expected one such as application/pdf"):
        write(Attachment(report, content_type=content_type))


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("a.tar.gz", None, "application/octet-stream"),
        ("a.unheard-of", None, "application/octet-stream"),
        ("mail.eml", None, "application/octet-stream"),  # message/rfc822 must not be in base64
        ("a.bin", "multipart/mixed", "application/octet-stream"),
        ("a.bin", "image/SVG+xml", "image/svg+xml"),
    ],
)
def test_type_is_by_the_name_or_as_asked(report: Path, name: str, wanted: str | None, expected: str) -> None:
    assert parts(write(Attachment(report, name, wanted))) == [(name, expected, report.read_bytes())]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "attachment"),
        ('a"; filename="b.exe', "a_; filename=_b.exe"),
        ("a\r\nBcc: eve@b.example", "a__Bcc_ eve@b.example"),
        ("report\u202efdp.exe", "reportfdp.exe"),
        ("日" * 200 + ".pdf", "日" * 48 + ".pdf"),
        ("half\ud800.pdf", "half_.pdf"),
    ],
)
def test_name_is_one_that_every_system_can_save(report: Path, name: str, expected: str) -> None:
    source = write(Attachment(report, name))
    assert [found for found, _, _ in parts(source)] == [expected]
    assert_legal(source)


@given(st.text(st.characters()), st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_arrives_as_it_is(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    source = write(Attachment(path, name))
    assert [found for _, _, found in parts(source)] == [content]
    assert_legal(source)

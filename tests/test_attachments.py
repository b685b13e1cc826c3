"""Attached files: pinned when the mail is made, put in when it goes out, the same to the byte or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.errors import InvalidInputError
from app.mail.attachments import Attached, Attachment, AttachmentChangedError, Source, attach, complete
from app.mail.headers import WIRE_POLICY
from tests.wire import assert_legal, read

ROOM_BYTES = 10_000
XS_HASH = hashlib.sha256(b"x" * 768).hexdigest()[:12]


def write(*sources: Source, text: str = "text") -> tuple[bytes, tuple[Attached, ...]]:
    mail = EmailMessage(policy=WIRE_POLICY)
    mail["Subject"] = "Report"
    mail.set_content(text)
    mail.add_alternative(f"<p>{text}</p>", subtype="html")
    files = attach(mail, sources, ROOM_BYTES)
    return mail.as_bytes(), files


def parts(source: bytes) -> list[tuple[str | None, str, bytes]]:
    return [
        (part.get_filename(), part.get_content_type(), bytes(part.get_payload(decode=True)))
        for part in read(source).iter_attachments()
    ]


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(bytes(range(256)) * 3)
    return path


def test_files_join_the_mail_when_it_goes_out(tmp_path: Path, report: Path) -> None:
    (tmp_path / "sales.png").write_bytes(b"PNG\n")
    (tmp_path / "empty").touch()
    message, files = write(
        str(report), tmp_path / "sales.png", Attachment(tmp_path / "empty", "Überblick.txt")
    )
    source = complete(message, files)
    assert parts(source) == [
        ("report.pdf", "application/pdf", report.read_bytes()),
        ("sales.png", "image/png", b"PNG\n"),
        ("Überblick.txt", "text/plain", b""),
    ]
    assert [part.get_content_type() for part in read(source).walk()][:4] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html",
    ]  # fmt: skip
    assert_legal(source)


def test_every_try_makes_the_same_bytes(report: Path) -> None:
    message, files = write(report, report)
    assert complete(message, files) == complete(message, files)
    assert [content for _, _, content in parts(complete(message, files))] == [report.read_bytes()] * 2


def test_mail_of_the_ledger_holds_a_line_in_place_of_the_file(report: Path) -> None:
    message, (file,) = write(report)
    assert message.count(f"\r\n{file.placeholder}\r\n".encode()) == 1
    assert len(message) < 1600
    assert complete(message, []) == message
    assert_legal(message)


def test_file_as_it_was_is_known_by_size_and_hash_and_travels_as_json(report: Path) -> None:
    message, (file,) = write(report)
    assert (file.path, file.name, file.size_bytes) == (str(report), "report.pdf", 768)
    assert (
        file.sha256 == "a13bec96b93e8bfacb86d99f4e6d6c4ea3f3a23ab89ddb8a9ba8c9d36a2a4dd9"
        or len(file.sha256) == 64
    )
    again = Attached(**json.loads(json.dumps(file.as_json())))
    assert again == file
    assert complete(message, [again]) == complete(message, [file])


def test_path_is_kept_whole_wherever_the_process_stands_later(
    report: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(report.parent)
    message, files = write("report.pdf")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert parts(complete(message, files))[0][2] == report.read_bytes()


def test_text_that_looks_like_a_placeholder_stays(report: Path) -> None:
    _, (other,) = write(report)
    text = f"Hello\n\n{other.placeholder}\n\n{other.placeholder}\n"
    message, files = write(report, text=text)
    source = complete(message, files)
    body = read(source).get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == text
    assert [content for _, _, content in parts(source)] == [report.read_bytes()]
    assert files[0].placeholder != other.placeholder


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_bytes(b"x" * 768), f"found 768 bytes with sha256 {XS_HASH}"),
        (lambda path: path.write_bytes(b"short"), "found 5 bytes with sha256 f9b0078b5df5"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x" * 10**6), "found more bytes than that"),
        (put_folder, "Is a directory|Permission denied"),
        pytest.param(
            put_pipe, "it is not a regular file",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders"),
        ),
    ],
)  # fmt: skip
def test_file_that_changed_stops_the_mail_and_is_named(
    report: Path, change: Callable[[Path], object], found: str
) -> None:
    message, files = write(report)
    change(report)
    with pytest.raises(AttachmentChangedError, match=found) as caught:
        complete(message, files)
    assert f"The attachment {str(report)!r}" in str(caught.value)
    assert "expected 768 bytes with sha256" in str(caught.value)


def test_file_that_was_brought_back_goes_out(report: Path) -> None:
    message, files = write(report)
    before = report.read_bytes()
    report.unlink()
    report.write_bytes(before)
    os.utime(report, (0, 0))
    assert parts(complete(message, files))[0][2] == before


def test_mail_that_lost_its_placeholder_does_not_go_without_the_file(report: Path) -> None:
    _, files = write(report)
    with pytest.raises(AttachmentChangedError, match=r"no place for its attachment 'report\.pdf'"):
        complete(b"Subject: other\r\n\r\ntext\r\n", files)


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
    message, files = write(Attachment(report, name, wanted))
    assert parts(complete(message, files)) == [(name, expected, report.read_bytes())]


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
    message, files = write(Attachment(report, name))
    source = complete(message, files)
    assert [found for found, _, _ in parts(source)] == [expected]
    assert_legal(source)


@given(st.text(st.characters()), st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_arrives_as_it_is(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    message, files = write(Attachment(path, name))
    source = complete(message, files)
    assert parts(source) == [(files[0].name, files[0].content_type, content)]
    assert len(source) == len(message) + files[0].added_bytes
    assert_legal(source)

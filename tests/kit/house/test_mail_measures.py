"""The measures of mail: a server that is as it says, letters that are counted, and that it works, in the small."""

from __future__ import annotations

import smtplib
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kit.benchmarks import mail_measures, rivals
from tests.kit.benchmarks.contestants.letter import BODY, SUBJECT, number_of, reader
from tests.kit.benchmarks.mail_measures import MAIL_MEASURES, MailServer
from tests.kit.benchmarks.marks import packed, read_marks
from tests.kit.benchmarks.measures import Contestant, FailedError, Run

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: reads /proc")

POOLED, ALONE = MAIL_MEASURES
POSTROOM = Contestant("postroom", "postroom", {"BENCHMARK_SYNCHRONOUS": "FULL"})
CELERY = Contestant("celery_redis", "celery_redis", needs_redis=True)
LETTER = f"Subject: {SUBJECT}\r\n\r\n{BODY}"


def test_a_readers_address_tells_the_number() -> None:
    assert [number_of(reader(n)) for n in (0, 7, 123)] == [0, 7, 123]


# The server


def test_it_offers_pipelining_and_marks_each_letter(tmp_path: Path) -> None:
    with MailServer(tmp_path / "marks") as server, smtplib.SMTP("127.0.0.1", server.port, "here") as client:
        client.ehlo()
        assert client.has_extn("pipelining")
        for n in (3, 0, 3):
            client.sendmail("post@example.com", [reader(n)], LETTER)
    assert [n for n, _ in read_marks(tmp_path / "marks")] == [3, 0, 3]
    assert server.connections == 1


def test_it_takes_commands_that_come_together(tmp_path: Path) -> None:
    with (
        MailServer(tmp_path / "marks") as server,
        socket.create_connection(("127.0.0.1", server.port), 10) as sock,
        sock.makefile("rwb") as talk,
    ):
        sock.sendall(
            b"EHLO here\r\nMAIL FROM:<post@example.com>\r\nRCPT TO:<reader5@example.com>\r\nDATA\r\n"
        )
        while not (answer := talk.readline()).startswith(b"354"):
            assert answer.startswith(b"2")
        sock.sendall(f"{LETTER}.\r\nQUIT\r\n".encode())
        assert talk.read().startswith(b"250 2.0.0 kept")
    assert [n for n, _ in read_marks(tmp_path / "marks")] == [5]


def test_what_is_not_the_letter_is_refused(tmp_path: Path) -> None:
    with (
        MailServer(tmp_path / "marks") as server,
        smtplib.SMTP("127.0.0.1", server.port, "here") as client,
        pytest.raises(smtplib.SMTPDataError, match="this is not the letter"),
    ):
        client.sendmail("post@example.com", [reader(1)], "Subject: Soup\r\n\r\nNothing\r\n")
    assert read_marks(tmp_path / "marks") == []


# Honesty


@pytest.mark.parametrize(
    ("came", "complaint"),
    [
        (range(9), "of 10 mails 9 came, 9 in all"),
        ([*range(10), 4], "of 10 mails 10 came, 11 in all"),
        (range(10), "10 mails came over 0 connections, expected 10 to 10"),
    ],
)
def test_a_mail_that_came_twice_or_not_at_all_or_the_wrong_way_is_an_error(
    came: list[int], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drive(run: Run, measure: str, **options: Any) -> Mapping[str, float]:
        (run.folder / "marks").write_bytes(b"".join(map(packed, came)))
        return {"per_s": 1.0}

    monkeypatch.setattr(mail_measures, "drive", drive)
    with pytest.raises(FailedError, match=complaint):
        ALONE.take(Run(POSTROOM, tmp_path / "run", 1, is_quick=True))


def test_mail_is_measured_of_those_who_send_it() -> None:
    assert POOLED.applies_to(POSTROOM)
    assert ALONE.applies_to(POSTROOM)
    assert not POOLED.applies_to(CELERY)
    assert ALONE.applies_to(CELERY)
    assert not ALONE.applies_to(Contestant("celery_acks_late", "celery_acks_late"))


# All of it


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("measure", MAIL_MEASURES, ids=lambda measure: measure.name)
def test_the_kit_sends_each_mail_once(measure: Any, tmp_path: Path) -> None:
    found = measure.take(Run(POSTROOM, tmp_path / "run", 1, is_quick=True))
    assert 1 < found["per_s"] < 1000


@pytest.mark.slow
@needs_linux
@pytest.mark.skipif(
    rivals.redis_version() is None, reason="needs redis-server; on Debian: apt install redis-server"
)
def test_celery_sends_each_mail_once(tmp_path: Path) -> None:
    rivals.ensure_environment()
    found = ALONE.take(Run(CELERY, tmp_path / "run", 1, is_quick=True))
    assert 1 < float(str(found["per_s"])) < 1000

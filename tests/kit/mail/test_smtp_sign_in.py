"""Signing in: over an encrypted connection only, and never quoted."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest

from app.kit.mail import ledger
from app.kit.mail.replies import NotSentError
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.exchange import Limits, Security, Server
from app.kit.mail.smtp.transport import SmtpTransport
from tests.kit.certificates import server_context, trust_authority
from tests.kit.delivery_rig import add
from tests.kit.misbehaving_server import Line, MisbehavingServer
from tests.kit.smtp_rig import BOTH, PATIENT, converse, make_sink, refusal
from tests.kit.smtp_sink import HANG_UP, SILENCE

USER, PASSWORD = "clé@example.com", "pässwört: 9/10 + %"
GIVEN = Credentials(USER, PASSWORD)
FORMS = [
    USER,
    PASSWORD,
    *(base64.b64encode(text.encode()).decode() for text in (USER, PASSWORD, f"\0{USER}\0{PASSWORD}")),
]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests' authority is one the system knows."""
    trust_authority(monkeypatch, tmp_path)


@BOTH
@pytest.mark.parametrize("without", [[], ["PLAIN"], ["LOGIN"]], ids=["both", "no PLAIN", "no LOGIN"])
@pytest.mark.usefixtures("trusted")
def test_the_right_password_opens(security: Security, without: list[str]) -> None:
    with make_sink(security, credentials=(USER, PASSWORD), without_auth=without) as sink:
        assert converse(sink.port, security, GIVEN).code == 250
        assert sink.verbs().count("auth") == 1


@BOTH
@pytest.mark.parametrize("without", [[], ["PLAIN"]])
@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_the_lanes_fault_and_tried_once_by_each_way(
    security: Security, without: list[str]
) -> None:
    with make_sink(security, credentials=(USER, "other"), without_auth=without) as sink:
        reply = refusal(sink.port, security, GIVEN)
        assert (reply.stage, reply.code, reply.enhanced) == ("auth", 535, "5.7.8")
        assert sink.verbs().count("auth") == 2 - len(without)
        assert "mail" not in sink.verbs()


@pytest.mark.parametrize("answer", ["504 5.5.4 not that way", "535 5.7.8 Login fail"])
@pytest.mark.usefixtures("trusted")
def test_the_other_way_is_tried_when_the_server_cannot_do_the_first(answer: str) -> None:
    with make_sink("tls", credentials=(USER, PASSWORD)) as sink:
        sink.answer("auth", answer)
        assert converse(sink.port, "tls", GIVEN).code == 250
        assert [command.split()[1] for command in sink.commands if command.startswith("auth")] == [
            "PLAIN",
            "LOGIN",
        ]


@pytest.mark.parametrize("answer", ["535 5.7.8 Login fail\r\n421 too many", "421 4.7.0 Login fail", HANG_UP])
@pytest.mark.usefixtures("trusted", "app")
def test_a_server_that_hangs_up_on_the_first_way_is_told_the_other_next_time(answer: str) -> None:
    with make_sink("tls", credentials=(USER, PASSWORD)) as sink:
        way = SmtpTransport(sink.url, "post@example.com", PATIENT)
        sink.answer("auth", answer)
        email = ledger.find(add())
        assert email is not None
        with pytest.raises(NotSentError, match=r"at auth: (535|421|the server hung up)"):
            way.deliver(email)
        way.deliver(email)
        way.close()
        assert len(sink.messages) == 1
        assert sink.commands[-5].startswith("auth LOGIN")


@pytest.mark.usefixtures("trusted")
def test_a_server_that_takes_no_password_is_not_used_without() -> None:
    with make_sink("tls", credentials=(USER, PASSWORD), without_auth=["PLAIN", "LOGIN"]) as sink:
        reply = refusal(sink.port, "tls", GIVEN)
        assert reply.stage == "auth"
        assert "expected AUTH PLAIN or LOGIN" in reply.words
        assert sink.verbs() == ["ehlo"]


@pytest.mark.parametrize(
    "answer", ["454 4.7.0 not now", "421 closing", "235", "334", "what?", HANG_UP, SILENCE]
)
@pytest.mark.usefixtures("trusted")
def test_only_a_clear_yes_to_the_password_counts(answer: str) -> None:
    with make_sink("tls", credentials=(USER, PASSWORD), without_auth=["LOGIN"]) as sink:
        sink.answer("auth", answer)
        if answer == "235":
            converse(sink.port, "tls", GIVEN)
        else:
            assert refusal(sink.port, "tls", GIVEN, Limits(command_s=0.5)).stage == "auth"


def test_a_password_is_never_said_in_the_clear() -> None:
    def want_it(line: Line) -> None:
        line.say("220 here")
        while True:
            line.hear()
            line.send(
                b"250-hello\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
                if len(line.heard) == 1
                else b"530 no\r\n"
            )

    with MisbehavingServer(want_it) as server:
        securities: list[Security] = ["starttls", "plain"]
        stages = [refusal(server.port, security, GIVEN).stage for security in securities]
        assert stages == ["tls", "auth"]
        assert not any(word in text for text in server.heard() for word in [*FORMS, "AUTH"])


@pytest.mark.parametrize("echo", [*FORMS, *(form[:-4] for form in FORMS[2:]), "AUTH PLAIN " + FORMS[-1]])
@pytest.mark.parametrize("stage", ["auth", "mail"])
@pytest.mark.usefixtures("trusted")
def test_a_server_that_repeats_the_password_is_not_quoted(
    stage: str, echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def repeat(line: Line) -> None:
        line.encrypt(server_context())
        line.say("220 here")
        line.hear()
        line.send(b"250-hello\r\n250 AUTH PLAIN\r\n")
        line.hear()
        if stage == "mail":
            line.say("235 in")
            line.hear()
        line.say(f"535 5.7.8 not ({echo}), is it")
        line.hear()

    with MisbehavingServer(repeat) as server, pytest.raises(NotSentError) as caught:
        converse(server.port, "tls", GIVEN)
    error = caught.value
    assert (error.reply.stage, error.reply.code) == (stage, 535)
    assert "***), is it" in error.reply.words
    shown = [
        str(error),
        repr(error),
        repr(error.reply),
        caplog.text,
        repr(Server("h", 1, "tls", GIVEN)),
        repr(GIVEN),
    ]
    assert not any(form[:-4] in text for text in shown for form in FORMS)

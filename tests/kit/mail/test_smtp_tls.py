"""Encryption: with servers that can, that cannot, and that are not who they say they are."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from app.kit.mail.replies import NotSentError, UnknownOutcomeError
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.exchange import Limits, Security, Server
from tests.kit.certificates import AUTHORITY, self_signed_context, server_context, trust_authority
from tests.kit.misbehaving_server import Line, MisbehavingServer
from tests.kit.smtp_rig import (
    BOTH,
    MESSAGE,
    PATIENT,
    converse,
    make_sink,
    refusal,
)
from tests.kit.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

GIVEN = Credentials("cleo", "secret")


# Encryption


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests' authority is one the system knows."""
    trust_authority(monkeypatch, tmp_path)


@BOTH
@pytest.mark.usefixtures("trusted")
def test_mail_goes_to_a_server_whose_authority_is_trusted(security: Security) -> None:
    with make_sink(security) as sink:
        assert converse(sink.port, security).code == 250
        assert sink.messages == [("cleo@example.com", MESSAGE)]
        assert sink.verbs() == (["ehlo", "starttls"] if security == "starttls" else []) + [
            "ehlo", "mail", "rcpt", "data", "quit",
        ]  # fmt: skip


@BOTH
@pytest.mark.parametrize(
    ("make_context", "words"),
    [
        (self_signed_context, "self-signed certificate"),
        (lambda path: server_context("elsewhere.example"), "not valid for '127.0.0.1'"),
        (lambda path: server_context(expired=True), "certificate has expired"),
    ],
    ids=["self-signed", "wrong host", "expired"],
)
@pytest.mark.usefixtures("trusted")
def test_a_bad_certificate_is_refused_in_words_and_nothing_is_said_to_that_server(
    security: Security, make_context: Callable[[Path], ssl.SSLContext], words: str, tmp_path: Path
) -> None:
    with make_sink(security, make_context(tmp_path), credentials=("cleo", "secret")) as sink:
        reply = refusal(sink.port, security, GIVEN)
        assert (reply.stage, reply.code) == ("tls", None)
        assert "certificate cannot be trusted" in reply.words
        assert words in reply.words
        assert "SSL_CERT_FILE" in reply.words
        assert sink.verbs() == (["ehlo", "starttls"] if security == "starttls" else [])


@BOTH
def test_an_authority_the_system_does_not_know_is_refused(security: Security) -> None:
    with make_sink(security) as sink:
        assert "unable to get local issuer certificate" in refusal(sink.port, security).words
        assert sink.messages == []


def test_starttls_that_is_not_offered_is_not_done_without() -> None:
    with SmtpSink() as sink:
        reply = refusal(sink.port, "starttls", GIVEN)
        assert reply.stage == "tls"
        assert "STARTTLS" in reply.words
        assert sink.verbs() == ["ehlo"]


@pytest.mark.parametrize(
    "answer", ["454 4.7.0 not now", "554 5.7.3 no", "502 what?", "421 closing", "what?", HANG_UP, SILENCE]
)
@pytest.mark.usefixtures("trusted")
def test_starttls_that_is_refused_is_not_done_without(answer: str) -> None:
    with make_sink("starttls") as sink:
        sink.answer("starttls", answer)
        assert refusal(sink.port, "starttls", GIVEN, Limits(command_s=0.5)).stage == "tls"
        assert sink.verbs() == ["ehlo", "starttls"]


def test_words_slipped_in_before_tls_are_not_believed() -> None:
    def inject(line: Line) -> None:
        line.say("220 here")
        line.hear()
        line.send(b"250-hello\r\n250 STARTTLS\r\n")
        line.hear()
        line.send(b"220 go on\r\n250-hello\r\n250 AUTH PLAIN\r\n")
        line.wait_for_goodbye()

    with MisbehavingServer(inject) as server:
        reply = refusal(server.port, "starttls", GIVEN)
        assert reply.stage == "tls"
        assert "between STARTTLS and TLS" in reply.words
        assert len(server.heard()) == 2


@pytest.mark.usefixtures("trusted")
def test_what_was_offered_in_the_clear_is_forgotten_under_tls() -> None:
    def offer_more_in_the_clear(line: Line) -> None:
        line.say("220 here")
        line.hear()
        line.send(b"250-hello\r\n250-STARTTLS\r\n250-SIZE 1\r\n250 AUTH PLAIN LOGIN\r\n")
        line.hear()
        line.say("220 go on")
        line.encrypt(server_context())
        line.hear()
        line.send(b"250 hello\r\n")
        line.wait_for_goodbye()

    with MisbehavingServer(offer_more_in_the_clear) as server:
        reply = refusal(server.port, "starttls", GIVEN)
        assert reply.stage == "auth"
        assert [text.split()[0] for text in server.heard()] == ["ehlo", "STARTTLS", "ehlo"]


def test_a_server_that_does_not_speak_tls_is_told_apart() -> None:
    with SmtpSink() as sink:
        reply = refusal(sink.port, "tls")
    assert reply.stage == "tls"
    assert "does the server speak TLS on this port?" in reply.words


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_handshake_has_a_limit(hang_up: bool) -> None:
    def say_nothing(line: Line) -> None:
        line.sock.recv(1)
        if not hang_up:
            line.wait_for_goodbye()

    with MisbehavingServer(say_nothing) as server:
        assert refusal(server.port, "tls", limits=Limits(command_s=0.3)).stage == "tls"


@BOTH
@pytest.mark.usefixtures("trusted")
def test_messages_of_any_size_go_through_tls(security: Security) -> None:
    message = b"Subject: Soup\r\n\r\n" + b".0123456789 and more\r\n" * 50_000
    with make_sink(security) as sink:
        with Conversation(Server("127.0.0.1", sink.port, security), PATIENT) as conversation:
            for _ in range(2):
                conversation.offer("post@example.com", "cleo@example.com", message)
                conversation.finish()
        assert [content for _, content in sink.messages] == [message] * 2


@pytest.mark.parametrize("answer", [HANG_UP, ACCEPT_AND_HANG_UP, SILENCE])
@BOTH
@pytest.mark.usefixtures("trusted")
def test_no_answer_to_the_dot_under_tls_is_an_unknown_outcome(security: Security, answer: str) -> None:
    with make_sink(security) as sink:
        sink.answer("dot", answer)
        with pytest.raises(UnknownOutcomeError):
            converse(sink.port, security, limits=Limits(dot_s=0.3))


@pytest.mark.usefixtures("trusted")
def test_dot_the_system_does_not_take_under_tls_is_an_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(sock: ssl.SSLSocket, *given: object) -> int:
        raise BrokenPipeError("in the middle of a record")

    with (
        make_sink("tls") as sink,
        Conversation(Server("127.0.0.1", sink.port, "tls"), PATIENT) as conversation,
    ):
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        monkeypatch.setattr(ssl.SSLSocket, "send", fail)
        with pytest.raises(UnknownOutcomeError) as caught:
            conversation.finish()
    assert caught.value.reply.stage == "dot"


@pytest.mark.usefixtures("trusted")
def test_hanging_up_before_the_dot_under_tls_is_not_sent() -> None:
    with (
        make_sink("tls") as sink,
        Conversation(Server("127.0.0.1", sink.port, "tls"), PATIENT) as conversation,
    ):
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        sink.stop()
        with pytest.raises(NotSentError) as caught:
            conversation.finish()
    assert caught.value.reply.stage == "data"


def test_an_injected_context_replaces_the_systems_authorities() -> None:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    with make_sink("tls") as sink:
        server = Server("127.0.0.1", sink.port, "tls", context=context)
        with Conversation(server, PATIENT) as conversation:
            conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
            assert conversation.finish().code == 250


@pytest.mark.usefixtures("trusted")
def test_what_was_offered_in_the_clear_does_not_count_under_tls() -> None:
    heard: list[bytes] = []

    def change_its_mind(line: Line) -> None:
        line.reach("ehlo")
        line.say("250-hello\r\n250-PIPELINING\r\n250 STARTTLS")
        line.hear()
        line.say("220 go on")
        line.encrypt(server_context())
        line.hear()
        line.say("250 hello")
        heard.append(line.sock.recv(4096))

    with MisbehavingServer(change_its_mind) as server:
        assert refusal(server.port, "starttls").stage == "mail"
    assert heard == [b"MAIL FROM:<post@example.com>\r\n"], "it waits for the answer"

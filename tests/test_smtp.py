"""One conversation with a real SMTP server that does what servers do."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from app.mail.smtp import Conversation, Limits, NotSentError, Reply, UnknownOutcomeError, is_permanent
from tests.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

MESSAGE = b"Subject: Soup\r\n\r\n.dots\r\n..\r\nend\r\n"
SHORT = Limits(connect_s=0.5, command_s=0.5, dot_s=0.5, quit_s=0.2)
BEFORE_THE_DOT = ("connect", "ehlo", "mail", "rcpt", "data")


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as sink:
        yield sink


def converse(sink: SmtpSink, message: bytes = MESSAGE) -> Reply:
    with Conversation("127.0.0.1", sink.port, SHORT) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", message)
        return conversation.finish()


def test_message_arrives_as_it_was_written(sink: SmtpSink) -> None:
    assert converse(sink) == Reply("dot", 250, "2.0.0", "kept")
    assert sink.messages == [("cleo@example.com", MESSAGE)]


def test_large_message_arrives_whole(sink: SmtpSink) -> None:
    message = b"Subject: Soup\r\n\r\n" + b".dot at every line's begin\r\n" * 20_000
    converse(sink, message)
    assert sink.messages[0][1] == message


def test_message_without_a_last_line_break_gets_one(sink: SmtpSink) -> None:
    converse(sink, b"Subject: Soup\r\n\r\nend")
    assert sink.messages[0][1] == b"Subject: Soup\r\n\r\nend\r\n"


@pytest.mark.parametrize("stage", BEFORE_THE_DOT)
@pytest.mark.parametrize(
    "answer", [HANG_UP, SILENCE, "what?", "2" * 10_000, "421 4.3.2 closing", "451 later"]
)
def test_trouble_before_the_dot_is_not_sent_and_may_be_tried_again(
    sink: SmtpSink, stage: str, answer: str
) -> None:
    sink.answer(stage, answer)
    with pytest.raises(NotSentError) as caught:
        converse(sink)
    assert caught.value.reply.stage == stage
    assert not caught.value.permanent
    assert len(caught.value.reply.words) <= 500
    assert sink.messages == []


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
def test_refusal_for_good_is_permanent(sink: SmtpSink, stage: str) -> None:
    sink.answer(stage, "550-5.1.1 no such reader\r\n550 5.1.1 at this house")
    with pytest.raises(NotSentError, match=f"at {stage}: 550 5.1.1 no such reader at this house") as caught:
        converse(sink)
    assert caught.value.reply == Reply(stage, 550, "5.1.1", "no such reader at this house")
    assert caught.value.permanent
    assert sink.messages == []


def test_passing_refusal_of_the_message_is_not_sent(sink: SmtpSink) -> None:
    sink.answer("dot", "451 4.3.0 disk full")
    with pytest.raises(NotSentError) as caught:
        converse(sink)
    assert not caught.value.permanent


def test_servers_words_cannot_write_on_the_terminal(sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 \x1b[2Jgone\0 for 5.1.1 good")
    with pytest.raises(NotSentError) as caught:
        converse(sink)
    assert caught.value.reply == Reply("rcpt", 550, "", " [2Jgone  for 5.1.1 good")


@pytest.mark.parametrize("answer", [HANG_UP, ACCEPT_AND_HANG_UP, SILENCE, "what?", "354 go on", "2" * 10_000])
def test_no_clear_answer_to_the_dot_is_an_unknown_outcome(sink: SmtpSink, answer: str) -> None:
    sink.answer("dot", answer)
    with pytest.raises(UnknownOutcomeError, match="may have been sent") as caught:
        converse(sink)
    assert caught.value.reply.stage == "dot"


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, "what?", "421 4.4.2 closing", "550 no"])
def test_quit_changes_nothing(sink: SmtpSink, answer: str) -> None:
    sink.answer("quit", answer)
    assert converse(sink).code == 250
    assert len(sink.messages) == 1


def test_leaving_before_the_dot_sends_nothing(sink: SmtpSink) -> None:
    with Conversation("127.0.0.1", sink.port, SHORT) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
    converse(sink, b"Subject: Second\r\n\r\n")
    assert [message for _, message in sink.messages] == [b"Subject: Second\r\n\r\n"]


def test_nobody_listening_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotSentError, match=rf"at connect: .*refused.* \(127\.0\.0\.1:{port}\)") as caught:
        Conversation("127.0.0.1", port, SHORT).__enter__()
    assert not caught.value.permanent


def test_greeting_may_take_longer_than_the_connection(sink: SmtpSink) -> None:
    sink.answer("connect", SILENCE)
    with pytest.raises(NotSentError, match="timed out") as caught:
        Conversation("127.0.0.1", sink.port, Limits(connect_s=0.01, command_s=0.3)).__enter__()
    assert caught.value.reply.stage == "connect"


# Source: RFC 5321 4.2 and 4.5.3.1.10, RFC 3463, RFC 7504, RFC 7505
@pytest.mark.parametrize(
    ("reply", "permanent"),
    [
        (("connect", 554, "", "no service"), False),
        (("connect", None, "", "refused"), False),
        (("ehlo", 502, "5.5.1", ""), False),
        (("mail", 421, "4.7.0", "too many"), False),
        (("mail", 530, "5.7.0", "sign in first"), False),
        (("mail", 535, "", ""), False),
        (("mail", 553, "5.1.8", "not your address"), True),
        (("rcpt", 421, "4.7.28", ""), False),
        (("rcpt", 432, "4.3.2", ""), False),
        (("rcpt", 450, "4.2.0", "greylisted"), False),
        (("rcpt", 451, "4.7.1", ""), False),
        (("rcpt", 452, "4.5.3", ""), False),
        (("rcpt", 454, "4.7.0", ""), False),
        (("rcpt", 500, "5.5.2", ""), True),
        (("rcpt", 521, "5.3.2", ""), True),
        (("rcpt", 550, "", ""), True),
        (("rcpt", 550, "5.1.1", ""), True),
        (("rcpt", 550, "4.2.1", "a code that contradicts itself"), True),
        (("rcpt", 450, "5.1.1", "a code that contradicts itself"), False),
        (("rcpt", 551, "5.1.6", ""), True),
        (("rcpt", 552, "", "too many recipients"), False),
        (("rcpt", 552, "5.2.2", "mailbox full"), False),
        (("rcpt", 552, "5.3.4", "too big"), True),
        (("rcpt", 553, "5.1.3", ""), True),
        (("rcpt", 556, "5.1.10", ""), True),
        (("rcpt", None, "", "hung up"), False),
        (("data", 554, "5.5.1", ""), True),
        (("data", 250, "", "not what was asked"), False),
        (("dot", 452, "4.3.1", ""), False),
        (("dot", 552, "5.3.4", "too big"), True),
        (("dot", 550, "5.7.1", "policy"), True),
        (("dot", 554, "5.7.1", ""), True),
    ],
)
def test_refusals_are_classified_by_stage_and_code(
    reply: tuple[str, int | None, str, str], permanent: bool
) -> None:
    assert is_permanent(Reply(*reply)) is permanent

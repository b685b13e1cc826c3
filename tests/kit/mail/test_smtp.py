"""One conversation with a real SMTP server that does what servers do."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from app.kit.mail.replies import NotSentError, Reply, UnknownOutcomeError, Verdict
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.exchange import Limits, Server
from tests.kit.misbehaving_server import Line, MisbehavingServer
from tests.kit.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

MESSAGE = b"Subject: Soup\r\n\r\n.dots\r\n..\r\nend\r\n"
PATIENT = Limits(connect_s=20, command_s=20, block_s=20, dot_s=20, reset_s=20, quit_s=0.2)
SHORT = Limits(connect_s=0.5, command_s=0.5, block_s=0.5, dot_s=0.5, reset_s=0.2, quit_s=0.2)
"""For servers that are silent; others may take their time on a busy machine."""
ONE_BY_ONE = [
    pytest.param(False, stage, id=f"one by one-{stage}")
    for stage in ("connect", "ehlo", "mail", "rcpt", "data")
]
AT_A_STROKE = [pytest.param(True, stage, id=f"pipelining-{stage}") for stage in ("mail", "rcpt", "data")]
BOTH_WAYS = pytest.mark.parametrize("sink", [False, True], ids=["one by one", "pipelining"], indirect=True)


@pytest.fixture
def sink(request: pytest.FixtureRequest) -> Iterator[SmtpSink]:
    """A mail server that misbehaves as it is told; it hears one command at a time, save in `BOTH_WAYS`."""
    with SmtpSink(pipelining=getattr(request, "param", False)) as sink:
        yield sink


def connection_to(sink: SmtpSink) -> Conversation:
    limits = SHORT if sink.will_be_silent else PATIENT
    return Conversation(Server("127.0.0.1", sink.port, "plain"), limits)


def give(conversation: Conversation, message: bytes = MESSAGE) -> Reply:
    conversation.offer("post@example.com", "cleo@example.com", message)
    return conversation.finish()


def converse(sink: SmtpSink, message: bytes = MESSAGE) -> Reply:
    with connection_to(sink) as conversation:
        return give(conversation, message)


@BOTH_WAYS
def test_message_arrives_as_it_was_written(sink: SmtpSink) -> None:
    assert converse(sink) == Reply("dot", 250, "2.0.0", "kept")
    assert sink.messages == [("cleo@example.com", MESSAGE)]


@BOTH_WAYS
def test_large_message_arrives_whole(sink: SmtpSink) -> None:
    message = b"Subject: Soup\r\n\r\n" + b".dot at every line's begin\r\n" * 20_000
    converse(sink, message)
    assert sink.messages[0][1] == message


def test_message_without_a_last_line_break_gets_one(sink: SmtpSink) -> None:
    converse(sink, b"Subject: Soup\r\n\r\nend")
    assert sink.messages[0][1] == b"Subject: Soup\r\n\r\nend\r\n"


@pytest.mark.parametrize(("sink", "stage"), [*ONE_BY_ONE, *AT_A_STROKE], indirect=["sink"])
@pytest.mark.parametrize(
    "answer", [HANG_UP, SILENCE, "what?", "2" * 10_000, "421 4.3.2 closing", "454 4.7.0 too fast"]
)
def test_trouble_before_the_dot_is_not_sent_and_the_lanes(sink: SmtpSink, stage: str, answer: str) -> None:
    sink.answer(stage, answer)
    with pytest.raises(NotSentError) as caught:
        converse(sink)
    assert (caught.value.reply.stage, caught.value.verdict) == (stage, Verdict.LANE)
    assert len(caught.value.reply.words) <= 500
    assert sink.messages == []


@BOTH_WAYS
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("code", [450, 550])
@pytest.mark.parametrize("enhanced", ["", "7.1"])
def test_refusal_at_each_stage_is_not_sent_and_told_word_for_word(
    sink: SmtpSink, stage: str, code: int, enhanced: str
) -> None:
    full = f"{code // 100}.{enhanced}" if enhanced else ""
    lines = [f"{code}-{full} not this", f"{code} {full} reader"]
    sink.answer(stage, "\r\n".join(" ".join(line.split()) for line in lines))
    with pytest.raises(NotSentError, match=f"at {stage}: {code} .*not this reader") as caught:
        converse(sink)
    assert caught.value.reply == Reply(stage, code, full, "not this reader")
    assert sink.messages == []


def test_nobody_listening_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotSentError, match=rf"at connect: .*refused.* \(127\.0\.0\.1:{port}\)") as caught:
        Conversation(Server("127.0.0.1", port, "plain"), PATIENT).open()
    assert caught.value.verdict is Verdict.LANE


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
def test_a_host_that_does_not_exist_is_not_sent(host: str) -> None:
    with pytest.raises(NotSentError, match=f"at connect: .*{host}") as caught:
        Conversation(Server(host, 25, "plain"), PATIENT).open()
    assert caught.value.verdict is Verdict.LANE


def test_greeting_may_take_longer_than_the_connection(sink: SmtpSink) -> None:
    sink.answer("connect", SILENCE)
    limits = Limits(connect_s=0.01, command_s=0.3)
    with pytest.raises(NotSentError, match=r"at connect: nothing for 0\.3 s: timed out"):
        Conversation(Server("127.0.0.1", sink.port, "plain"), limits).open()


@pytest.mark.parametrize("answer", [HANG_UP, ACCEPT_AND_HANG_UP, SILENCE, "what?", "354 go on", "2" * 10_000])
def test_no_clear_answer_to_the_dot_is_an_unknown_outcome(sink: SmtpSink, answer: str) -> None:
    sink.answer("dot", answer)
    with connection_to(sink) as conversation:
        with pytest.raises(UnknownOutcomeError, match="may have been sent") as caught:
            give(conversation)
        assert not conversation.reusable
    assert caught.value.reply.stage == "dot"


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, "what?", "421 4.4.2 closing", "550 no"])
def test_quit_changes_nothing(sink: SmtpSink, answer: str) -> None:
    sink.answer("quit", answer)
    assert converse(sink).code == 250
    assert len(sink.messages) == 1


@BOTH_WAYS
def test_leaving_before_the_dot_sends_nothing(sink: SmtpSink) -> None:
    with connection_to(sink) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        assert not conversation.reusable
    converse(sink, b"Subject: Second\r\n\r\n")
    assert [message for _, message in sink.messages] == [b"Subject: Second\r\n\r\n"]
    assert sink.verbs().count("quit") == 1


# More than one message


@BOTH_WAYS
def test_a_second_message_follows_the_first_without_more_words(sink: SmtpSink) -> None:
    with connection_to(sink) as conversation:
        give(conversation)
        assert conversation.reusable
        assert not conversation.needs_reset
        give(conversation, b"Subject: Second\r\n\r\n")
    assert sink.verbs() == ["ehlo", *["mail", "rcpt", "data"] * 2, "quit"]
    assert [message for _, message in sink.messages] == [MESSAGE, b"Subject: Second\r\n\r\n"]


@BOTH_WAYS
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("code", ["450 4.2.0 later", "550 5.1.1 never"])
def test_connection_may_be_used_again_after_a_refusal_and_a_reset(
    sink: SmtpSink, stage: str, code: str
) -> None:
    sink.answer(stage, code)
    with connection_to(sink) as conversation:
        with pytest.raises(NotSentError):
            give(conversation)
        assert conversation.reusable
        assert conversation.needs_reset
        assert conversation.reset()
        assert not conversation.needs_reset
        assert give(conversation).code == 250
    assert (len(sink.messages), sink.connections) == (1, 1)


@BOTH_WAYS
def test_greylisted_then_taken(sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.7.1 Greylisted, try again in 300 seconds")
    with pytest.raises(NotSentError) as caught:
        converse(sink)
    assert (caught.value.verdict, caught.value.reply.retry_after_s) == (Verdict.LATER, 300)
    assert converse(sink).code == 250


@BOTH_WAYS
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("answer", ["421 4.4.2 closing", "what?"])
def test_connection_is_not_used_again_after_421_or_nonsense(sink: SmtpSink, stage: str, answer: str) -> None:
    sink.answer(stage, answer)
    with connection_to(sink) as conversation:
        with pytest.raises((NotSentError, UnknownOutcomeError)):
            give(conversation)
        assert not conversation.reusable
        assert not conversation.reset()
    assert "quit" not in sink.verbs()


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, "421 closing", "500 what?", "what?"])
def test_a_reset_that_is_not_answered_well_says_so(sink: SmtpSink, answer: str) -> None:
    sink.answer("rset", answer)
    with connection_to(sink) as conversation:
        assert not conversation.reset()


# What is not sent at all


@BOTH_WAYS
def test_size_is_told_to_a_server_that_asks_for_it(sink: SmtpSink) -> None:
    converse(sink)
    assert f"mail FROM:<post@example.com> SIZE={len(MESSAGE)}" in sink.commands


def test_message_larger_than_the_server_takes_fails_before_anything_is_sent() -> None:
    with SmtpSink(most_bytes=1000) as sink:
        with connection_to(sink) as conversation:
            with pytest.raises(
                NotSentError, match=r"at mail: 552 5\.3\.4 .* 1001 bytes, the server takes 1000"
            ) as caught:
                give(conversation, b"x" * 1001)
            assert conversation.reusable
            assert not conversation.needs_reset
            assert give(conversation, b"Subject: x\r\n\r\n" + b"x" * 984 + b"\r\n").code == 250
        assert caught.value.verdict is Verdict.FAILED
        assert sink.verbs() == ["ehlo", "mail", "rcpt", "data", "quit"]


@pytest.mark.parametrize(
    "address", ["jürgen@example.com", "a@b\r\nRCPT TO:<eve@example.com>", "a b@c", "a@b>", "no-at", ""]
)
def test_address_that_smtp_cannot_say_fails_that_mail_alone(sink: SmtpSink, address: str) -> None:
    with connection_to(sink) as conversation:
        with pytest.raises(NotSentError, match="at rcpt: no server can be told this address") as caught:
            conversation.offer("post@example.com", address, MESSAGE)
        assert caught.value.verdict is Verdict.FAILED
        with pytest.raises(NotSentError, match="at mail: no server can be told this sender") as caught:
            conversation.offer(address, "cleo@example.com", MESSAGE)
        assert caught.value.verdict is Verdict.LANE
    assert sink.verbs() == ["ehlo", "quit"]


# Old servers


def test_a_server_without_ehlo_is_greeted_the_old_way() -> None:
    def be_old(line: Line) -> None:
        line.say("220 here")
        line.hear()
        line.say("502 5.5.1 what?")
        for answer in ("250 hello", "250 ok", "250 ok", "354 go on"):
            line.hear()
            line.say(answer)
        line.hear(b"\r\n.\r\n")
        line.say("250 kept")

    with MisbehavingServer(be_old) as server:
        with Conversation(Server("127.0.0.1", server.port, "plain"), PATIENT) as conversation:
            assert give(conversation).code == 250
        said = [text.split()[0] for text in server.heard()]
    assert said[:3] == ["ehlo", "helo", "MAIL"]


def test_a_server_that_wants_no_greeting_at_all_is_not_sent() -> None:
    def refuse(line: Line) -> None:
        line.say("220 here")
        for _ in range(2):
            line.hear()
            line.say("554 5.7.1 not you")

    with MisbehavingServer(refuse) as server, pytest.raises(NotSentError) as caught:
        Conversation(Server("127.0.0.1", server.port, "plain"), PATIENT).open()
    assert str(caught.value.reply) == "at ehlo: 554 5.7.1 not you"
    assert caught.value.verdict is Verdict.LANE

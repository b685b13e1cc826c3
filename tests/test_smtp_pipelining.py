"""Several commands at a stroke, and a server that answers them as it likes."""

from __future__ import annotations

import pytest

from app.mail.replies import NotSentError, Reply, Verdict
from app.mail.smtp import Conversation
from app.mail.smtp_exchange import Limits, Server
from tests.misbehaving_server import Line, MisbehavingServer

MESSAGE = b"Subject: Soup\r\n\r\nHello\r\n"
LIMITS = Limits(connect_s=20, command_s=20, block_s=20, dot_s=20, reset_s=20, quit_s=0.2)
COMMANDS = ["MAIL FROM:<post@example.com>", "RCPT TO:<cleo@example.com>", "DATA"]


def connection_to(server: MisbehavingServer) -> Conversation:
    return Conversation(Server("127.0.0.1", server.port, "plain"), LIMITS)


def offer(conversation: Conversation) -> None:
    conversation.offer("post@example.com", "cleo@example.com", MESSAGE)


def greet(line: Line) -> None:
    line.say("220 here")
    line.hear()
    line.say("250-hello\r\n250 PIPELINING")


def test_nothing_is_answered_before_all_three_have_come() -> None:
    heard: list[str] = []

    def wait_for_all(line: Line) -> None:
        greet(line)
        heard.extend(line.hear() for _ in COMMANDS)  # a client that waits for an answer would wait for ever
        line.say("250-2.1.0 ok\r\n250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on")  # in one packet
        line.hear(b"\r\n.\r\n")
        line.say("250 2.0.0 kept")
        line.wait_for_goodbye()

    with MisbehavingServer(wait_for_all) as server, connection_to(server) as conversation:
        offer(conversation)
        assert conversation.finish() == Reply("dot", 250, "2.0.0", "kept")
        assert conversation.reusable
    assert heard == COMMANDS


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["550 5.7.1 not you", "503 what?", "354 go on"], Reply("mail", 550, "5.7.1", "not you")),
        (["250 ok", "550 5.1.1 nobody", "354 go on"], Reply("rcpt", 550, "5.1.1", "nobody")),
    ],
)
def test_a_message_that_is_wanted_though_it_was_refused_is_not_given(answers: list[str], said: Reply) -> None:
    rest: list[bytes] = []

    def want_it_all_the_same(line: Line) -> None:
        greet(line)
        for _ in COMMANDS:
            line.hear()
        for answer in answers:
            line.say(answer)
        while content := line.sock.recv(4096):
            rest.append(content)

    with MisbehavingServer(want_it_all_the_same) as server, connection_to(server) as conversation:
        with pytest.raises(NotSentError) as caught:
            offer(conversation)
        assert caught.value.reply == said
        assert not conversation.reusable, "only a dot ends the message, and would send it"
    assert rest == [], "it hung up without a word"


@pytest.mark.parametrize(("answered", "stage"), [(0, "mail"), (1, "rcpt"), (2, "data")])
@pytest.mark.parametrize("last", ["", "421 4.3.2 closing"])
def test_a_server_that_leaves_between_its_answers_took_nothing(answered: int, stage: str, last: str) -> None:
    def leave(line: Line) -> None:
        greet(line)
        for _ in COMMANDS:
            line.hear()
        for _ in range(answered):
            line.say("250 ok")
        if last:
            line.say(last)

    with MisbehavingServer(leave) as server, connection_to(server) as conversation:
        with pytest.raises(NotSentError) as caught:
            offer(conversation)
        assert not conversation.reusable
    assert (caught.value.reply.stage, caught.value.verdict) == (stage, Verdict.LANE)
    assert caught.value.reply.code == (421 if last else None)


def test_the_first_refusal_counts_though_the_server_leaves_after_it() -> None:
    def refuse_and_leave(line: Line) -> None:
        greet(line)
        for _ in COMMANDS:
            line.hear()
        line.say("250 ok\r\n550 5.1.1 nobody")

    with MisbehavingServer(refuse_and_leave) as server, connection_to(server) as conversation:
        with pytest.raises(NotSentError) as caught:
            offer(conversation)
        assert not conversation.reusable
    assert caught.value.reply == Reply("rcpt", 550, "5.1.1", "nobody")


def test_after_a_refusal_the_connection_serves_the_next_mail() -> None:
    def refuse_once(line: Line) -> None:
        greet(line)
        for answers in (
            ["250 ok", "450 4.2.1 later", "503 first a recipient"],
            ["250 ok", "250 ok", "354 go on"],
        ):
            for _ in COMMANDS:
                line.hear()
            for answer in answers:
                line.say(answer)
        line.hear(b"\r\n.\r\n")
        line.say("250 2.0.0 kept")
        line.wait_for_goodbye()

    with MisbehavingServer(refuse_once) as server, connection_to(server) as conversation:
        with pytest.raises(NotSentError):
            offer(conversation)
        assert (conversation.reusable, conversation.needs_reset) == (True, True)
        offer(conversation)
        assert conversation.finish().code == 250

"""Several commands at a stroke, and a server that answers them as it likes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask

from app.kit.mail import lanes
from app.kit.mail.delivery import LaneClosedError
from app.kit.mail.replies import NotSentError, Reply, Verdict
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.exchange import Limits, Server
from app.kit.mail.smtp.transport import SmtpTransport
from app.kit.mail.transports import transport
from tests.kit.delivery_rig import add, deliver, outcomes, row
from tests.kit.misbehaving_server import PIPELINING, Line, MisbehavingServer
from tests.kit.smtp_sink import SmtpSink

MESSAGE = b"Subject: Soup\r\n\r\nHello\r\n"
LIMITS = Limits(connect_s=20, command_s=20, block_s=20, dot_s=20, reset_s=20, quit_s=0.2)
COMMANDS = ["MAIL FROM:<post@example.com>", "RCPT TO:<cleo@example.com>", "DATA"]
BLOCK = "MAIL FROM:<post@example.com>\r\nRCPT TO:<cleo@example.com>\r\nDATA\r\n"


def connection_to(server: MisbehavingServer, limits: Limits = LIMITS) -> Conversation:
    return Conversation(Server("127.0.0.1", server.port, "plain"), limits)


def offer(conversation: Conversation) -> None:
    conversation.offer("post@example.com", "cleo@example.com", MESSAGE)


def greet(line: Line) -> None:
    line.say("220 here")
    line.hear()
    line.say(PIPELINING)


# What comes, and what is answered


def test_all_three_come_at_once_and_are_answered_at_once() -> None:
    heard: list[str] = []

    def answer_all(line: Line) -> None:
        greet(line)
        heard.append(line.sock.recv(4096).decode())
        line.say("250-2.1.0 ok\r\n250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on")  # in one packet
        line.hear(b"\r\n.\r\n")
        line.say("250 2.0.0 kept")
        line.wait_for_goodbye()

    with MisbehavingServer(answer_all) as server, connection_to(server) as conversation:
        offer(conversation)
        assert conversation.finish() == Reply("dot", 250, "2.0.0", "kept")
        assert conversation.reusable
    assert heard == [BLOCK]


@pytest.mark.parametrize(("hello", "one_by_one"), [("250 hello", False), (PIPELINING, True)])
def test_one_comes_at_a_time_where_that_is_all_there_may_be(hello: str, one_by_one: bool) -> None:
    heard: list[str] = []

    def answer_each(line: Line) -> None:
        line.reach("ehlo")
        line.say(hello)
        for answer in ("250 ok", "250 ok", "354 go on"):
            heard.append(line.sock.recv(4096).decode())
            line.say(answer)
        line.hear(b"\r\n.\r\n")
        line.say("250 2.0.0 kept")

    with MisbehavingServer(answer_each) as server:
        server_of_it = Server("127.0.0.1", server.port, "plain")
        with Conversation(server_of_it, LIMITS, one_by_one=one_by_one) as conversation:
            offer(conversation)
            assert conversation.finish().code == 250
    assert [text.lower() for text in heard] == [line.lower() + "\r\n" for line in COMMANDS]


def test_answers_may_come_in_dribs() -> None:
    def dribble(line: Line) -> None:
        greet(line)
        for _ in COMMANDS:
            line.hear()
        for byte in b"250-2.1.0 ok\r\n250 2.1.0 ok\r\n250-2.1.5 ok\r\n250 2.1.5 too\r\n354-go\r\n354 on\r\n":
            line.send(bytes([byte]))
            line.wait(0.001)
        line.hear(b"\r\n.\r\n")
        line.say("250 2.0.0 kept")

    with MisbehavingServer(dribble) as server, connection_to(server) as conversation:
        offer(conversation)
        assert conversation.finish() == Reply("dot", 250, "2.0.0", "kept")


def test_each_answer_has_the_whole_limit() -> None:
    def take_time(line: Line) -> None:
        greet(line)
        for answer in ("250 ok", "250 ok", "354 go on"):
            line.wait(0.2)
            line.say(answer)
        line.hear(b"\r\n.\r\n")
        line.say("250 2.0.0 kept")

    with (
        MisbehavingServer(take_time) as server,
        connection_to(server, replace(LIMITS, command_s=0.5)) as conversation,
    ):
        offer(conversation)
        assert conversation.finish().code == 250


# Refusals, hang-ups, nonsense


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


@pytest.mark.parametrize("too_many", [0, 1])
def test_one_answer_too_many_is_noticed_and_the_connection_not_kept(too_many: int) -> None:
    def answer_twice(line: Line) -> None:
        greet(line)
        for _ in COMMANDS:
            line.hear()
        answers = ["250 ok", "250 ok", "354 go on"]
        for answer in [*answers[: too_many + 1], *answers[too_many:]]:
            line.say(answer)
        line.wait_for_goodbye()

    with MisbehavingServer(answer_twice) as server, connection_to(server) as conversation:
        with pytest.raises(NotSentError) as caught:
            offer(conversation)
        assert not conversation.reusable
    assert (caught.value.reply.stage, caught.value.verdict) == ("data", Verdict.LANE)


def test_who_stumbles_between_the_answers_does_not_keep_the_connection(
    sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble() -> tuple[int, bytes]:
        raise RuntimeError("a bug")

    with Conversation(Server("127.0.0.1", sink.port, "plain"), LIMITS) as conversation:
        monkeypatch.setattr(conversation._exchange.client, "getreply", stumble)
        with pytest.raises(RuntimeError, match="a bug"):
            offer(conversation)
        assert not conversation.reusable, "nobody knows what the server waits for"
    assert sink.wait_for_goodbye()
    assert (sink.messages, "quit" in sink.verbs()) == ([], False)


# What follows


@pytest.mark.usefixtures("app")
def test_a_reader_refused_by_a_server_that_wants_the_message_harms_no_other_mail(
    app: Flask, sink: SmtpSink
) -> None:
    app.extensions["transport"] = SmtpTransport(sink.url, "post@example.com", LIMITS)
    sink.answer("rcpt", "550 5.7.1 not to this one")
    sink.answer("data", "354 go on")
    refused, other = add(), add(number=2)
    with pytest.raises(NotSentError, match=r"at rcpt: 550 5\.7\.1 not to this one"):
        deliver(refused)
    assert (row(refused)["state"], lanes.find(transport().name).faults) == ("failed", 0)
    assert deliver(other, number=2) == "sent"
    assert (len(sink.messages), sink.connections, sink.verbs().count("quit")) == (1, 2, 0)


@pytest.mark.usefixtures("app")
def test_a_server_that_owes_its_answers_when_it_hangs_up_is_asked_one_by_one(app: Flask) -> None:
    """It stumbles over one reader: the mail to that one has to wait behind the others."""

    def stumble(line: Line) -> None:
        line.reach("ehlo")
        line.say(PIPELINING)
        if (
            line.sock.recv(4096).count(b"\r\n") == 1
        ):  # else it keeps its answer to MAIL for a packet with the others
            line.say("250 ok")
            line.hear()

    with MisbehavingServer(stumble) as server:
        app.extensions["transport"] = SmtpTransport(
            f"smtp+plain://127.0.0.1:{server.port}", "post@example.com", LIMITS
        )
        email_id, behind = add(), []
        for stage in ("mail", "rcpt"):
            with pytest.raises(LaneClosedError, match=f"at {stage}: ") as caught:
                deliver(email_id)
            behind.append(caught.value.behind_s > 0)
            lanes.open_all()
    assert behind == [True, True]
    assert outcomes(email_id) == ["lane", "lane"]

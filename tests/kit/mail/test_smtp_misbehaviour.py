"""One conversation with a server that does what no server should."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.kit.mail.replies import NotSentError, Reply, UnknownOutcomeError, Verdict
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.exchange import Limits, Server
from tests.kit.misbehaving_server import GOOD_ANSWERS, PIPELINING, Line, MisbehavingServer

MESSAGE = b"Subject: Soup\r\n\r\nHello\r\n"
PATIENT = Limits(connect_s=20, command_s=20, block_s=20, dot_s=20, reset_s=20, quit_s=0.2)
SHORT = Limits(connect_s=0.5, command_s=0.5, block_s=0.5, dot_s=0.5, reset_s=0.2, quit_s=0.2)
"""For servers that are silent; others may take their time on a busy machine."""
STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "dot")
ONE_BY_ONE = [pytest.param(stage, GOOD_ANSWERS["ehlo"], id=stage) for stage in STAGES]
OF_THREE = [pytest.param(stage, PIPELINING, id=f"{stage} of three") for stage in ("mail", "rcpt", "data")]
"""Stages, and the answer to EHLO: of a server that hears one command at a time, or three at a stroke."""


def connection_to(server: MisbehavingServer, limits: Limits = PATIENT) -> Conversation:
    return Conversation(Server("127.0.0.1", server.port, "plain"), limits)


def converse(server: MisbehavingServer, limits: Limits = PATIENT, message: bytes = MESSAGE) -> Reply:
    with connection_to(server, limits) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", message)
        return conversation.finish()


def outcome(scene: Callable[[Line], None], limits: Limits = PATIENT) -> NotSentError | UnknownOutcomeError:
    with MisbehavingServer(scene) as server, pytest.raises((NotSentError, UnknownOutcomeError)) as caught:
        converse(server, limits)
    assert isinstance(caught.value, NotSentError | UnknownOutcomeError)
    return caught.value


# Answers that never end, or are none


@pytest.mark.parametrize(("stage", "hello"), [*ONE_BY_ONE, OF_THREE[1]])
def test_a_server_that_dribbles_is_not_listened_to_for_ever(stage: str, hello: str) -> None:
    def dribble(line: Line) -> None:
        line.reach(stage, ehlo=hello)
        line.send(b"250-")
        while not line.stopping.is_set():
            line.send(b"x")
            line.wait(0.05)  # much less than the limit, which is one for the whole answer

    error = outcome(dribble, SHORT)
    assert (error.reply.stage, error.reply.code) == (stage, None)
    assert "timed out" in error.reply.words
    assert isinstance(error, UnknownOutcomeError) == (stage == "dot")


@pytest.mark.parametrize(("stage", "hello"), [*ONE_BY_ONE, *OF_THREE])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"2",
        b"250",
        b"250 ok",
        b"250-ok\r\n",
        b"250-ok\r\n250",
        b"\r\n",
        b"\x00\xff\xfe\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"250_ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"250-ok\r\n450 ok\r\n",
        b"250-ok\r\nok\r\n",
        b"250-" + b"x" * 100_000,
        b"250 " + b"x" * 70_000 + b"\r\n",
        b"250-ok\r\n" * 1000 + b"250 ok\r\n",
    ],
    ids=lambda answer: repr(answer[:20]) + f" {len(answer)}",
)
def test_what_is_no_whole_answer_is_none(stage: str, hello: str, answer: bytes) -> None:
    def mumble(line: Line) -> None:
        line.reach(stage, ehlo=hello)
        line.send(answer)

    error = outcome(mumble)
    assert (error.reply.stage, error.reply.code) == (stage, None)
    assert error.verdict is (Verdict.UNKNOWN if stage == "dot" else Verdict.LANE)
    assert len(error.reply.words) <= 500


def test_garbage_is_shown_to_people() -> None:
    error = outcome(lambda line: line.send(b"HTTP/1.1 400 Bad\x1b[2J Request\r\n"))
    assert error.reply == Reply("connect", None, "", "HTTP/1.1 400 Bad [2J Request")


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize(
    "answer", [b"250", b"250 ", b"250 2.0.0 kept", b"250-2.0.0 kept%250", b"250-kept%250-it%250 2.0.0"]
)
def test_short_long_and_sloppy_answers_are_understood(answer: bytes, end: bytes) -> None:
    def answer_so(line: Line) -> None:
        line.reach("dot")
        line.send(answer.replace(b"%", end) + end)
        line.wait_for_goodbye()

    with MisbehavingServer(answer_so) as server:
        assert converse(server).code == 250


def test_an_answer_in_many_pieces_is_one() -> None:
    def hesitate(line: Line) -> None:
        line.reach("dot")
        for byte in b"250-2.0.0 kept\r\n250 2.0.0 it\r\n":
            line.send(bytes([byte]))

    with MisbehavingServer(hesitate) as server:
        assert converse(server, Limits()) == Reply("dot", 250, "2.0.0", "kept it")


@pytest.mark.parametrize("accepted", [True, False])
def test_a_late_answer_to_the_dot_leaves_the_outcome_unknown(accepted: bool) -> None:
    def come_late(line: Line) -> None:
        line.reach("dot")
        line.wait_for_goodbye()
        line.say("250 2.0.0 kept" if accepted else "550 no")

    error = outcome(come_late, replace(PATIENT, dot_s=0.05))
    assert isinstance(error, UnknownOutcomeError)
    assert "nothing for 0.05 s: timed out" in error.reply.words


def test_the_dot_has_its_own_and_longer_limit() -> None:
    def take_time(line: Line) -> None:
        line.reach("dot")
        line.wait(0.3)
        line.say("250 2.0.0 kept")

    with MisbehavingServer(take_time) as server:
        assert converse(server, Limits(command_s=0.2, dot_s=30)).code == 250


# Said out of turn


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt"])
def test_an_answer_nobody_asked_for_does_not_answer_the_next_command(stage: str) -> None:
    def answer_twice(line: Line) -> None:
        line.reach(stage)
        line.send(b"250 ok\r\n250 ok\r\n" if stage != "connect" else b"220 ok\r\n250 ok\r\n")
        line.wait_for_goodbye()

    error = outcome(answer_twice)
    following = STAGES[STAGES.index(stage) + 1]
    assert (error.reply.stage, error.reply.code) == (following, None)
    assert "out of turn" in error.reply.words


def test_a_yes_before_the_dot_is_not_its_answer() -> None:
    def answer_twice(line: Line) -> None:
        line.reach("data")
        line.send(b"354 go on\r\n250 2.0.0 kept\r\n")
        line.wait_for_goodbye()

    error = outcome(answer_twice)
    assert isinstance(error, NotSentError)
    assert (error.reply.stage, error.reply.code, error.verdict) == ("data", None, Verdict.LANE)


def test_a_no_before_the_dot_is_heard_and_the_dot_kept_back() -> None:
    def refuse_early(line: Line) -> None:
        line.reach("data")
        line.send(b"354 go on\r\n552 5.3.4 too large\r\n")
        line.hear(b"\r\n.\r\n")

    with MisbehavingServer(refuse_early) as server:
        with pytest.raises(NotSentError) as caught:
            converse(server)
        assert caught.value.reply == Reply("data", 552, "5.3.4", "too large")
        assert caught.value.verdict is Verdict.FAILED
        assert len(server.heard()) == 4  # EHLO, MAIL, RCPT, DATA, and no end of a message


def test_a_goodbye_behind_the_yes_does_not_undo_it() -> None:
    def take_and_close(line: Line) -> None:
        line.reach("dot")
        line.send(b"250 2.0.0 kept\r\n421 4.3.2 closing\r\n")
        line.wait_for_goodbye()

    with MisbehavingServer(take_and_close) as server, connection_to(server) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        assert conversation.finish().code == 250
        with pytest.raises(NotSentError) as caught:
            conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        assert caught.value.reply == Reply("mail", 421, "4.3.2", "closing")


# The message and its dot


def test_hanging_up_before_the_dot_is_not_sent() -> None:
    gone = []

    def leave(line: Line) -> None:
        line.reach("data")
        line.say("354 go on")
        line.hear(b"Hello\r\n")
        line.sock.close()
        gone.append(True)

    with MisbehavingServer(leave) as server, connection_to(server) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        deadline = time.monotonic() + 10
        while not gone and time.monotonic() < deadline:
            time.sleep(0.001)
        with pytest.raises(NotSentError) as caught:
            conversation.finish()
    assert (caught.value.reply.stage, caught.value.verdict) == ("data", Verdict.LANE)
    assert "the server hung up" in caught.value.reply.words


def test_dot_the_system_does_not_take_is_not_sent() -> None:
    def leave(line: Line) -> None:
        line.reach("data")
        line.say("354 go on")
        line.stopping.wait()  # says nothing, and does not hang up

    with MisbehavingServer(leave) as server, connection_to(server) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        sock = conversation._exchange.client.sock
        assert sock is not None
        sock.shutdown(socket.SHUT_WR)  # what a broken pipe is to the system
        with pytest.raises(NotSentError) as caught:
            conversation.finish()
    assert caught.value.reply.stage == "data"


def test_a_server_that_stops_reading_does_not_hold_the_message_for_ever() -> None:
    def stop_reading(line: Line) -> None:
        line.reach("data")
        line.say("354 go on")
        line.stopping.wait()

    with MisbehavingServer(stop_reading) as server, pytest.raises(NotSentError) as caught:
        converse(server, replace(PATIENT, block_s=0.1), b"x" * 50_000_000)
    assert caught.value.reply.stage == "data"
    assert "timed out" in caught.value.reply.words


def test_all_blocks_together_have_a_limit() -> None:
    def read_slowly(line: Line) -> None:
        line.reach("data")
        line.say("354 go on")
        while line.sock.recv(4096):
            line.wait(0.001)

    with MisbehavingServer(read_slowly) as server, pytest.raises(NotSentError, match="timed out"):
        converse(server, replace(PATIENT, message_s=0.2), b"x" * 50_000_000)


def test_the_reason_for_not_reading_on_is_told() -> None:
    def refuse(line: Line) -> None:
        line.reach("data")
        line.say("354 go on")
        line.say("552 5.3.4 enough")
        line.stopping.wait()

    with MisbehavingServer(refuse) as server, pytest.raises(NotSentError) as caught:
        converse(server, replace(PATIENT, block_s=0.1), b"x" * 50_000_000)
    assert caught.value.reply == Reply("data", 552, "5.3.4", "enough")

"""Connections that are kept between mails, with a real SMTP server and a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from app.kit.mail.replies import NotSentError, Reply
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.exchange import Limits, Server
from app.kit.mail.smtp.pool import (
    CLOSE_AFTER_S,
    MAX_CONNECTIONS,
    MAX_OFFERS,
    PROBE_AFTER_S,
    SMALLER_FOR_S,
    Pool,
)
from tests.kit.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

MESSAGE = b"Subject: Soup\r\n\r\nHello\r\n"
PATIENT = Limits(connect_s=20, command_s=20, block_s=20, dot_s=20, reset_s=20, quit_s=0.2)
SHORT = Limits(connect_s=0.5, command_s=0.5, block_s=0.5, dot_s=0.5, reset_s=0.2, quit_s=0.2)
"""For servers that are silent; others may take their time on a busy machine."""
GREETED = ["ehlo"]
MAILED = ["mail", "rcpt", "data"]


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[False, True], ids=["one by one", "pipelining"])
def sink(request: pytest.FixtureRequest) -> Iterator[SmtpSink]:
    """A mail server that hears commands one by one, or at a stroke."""
    with SmtpSink(pipelining=request.param) as sink:
        yield sink


@pytest.fixture
def pool(request: pytest.FixtureRequest, sink: SmtpSink, clock: Clock) -> Iterator[Pool]:
    limits = SHORT if SILENCE in request.node.name else PATIENT
    pool = Pool(lambda: connect(sink, limits), clock=clock)
    yield pool
    pool.close()


def connect(sink: SmtpSink, limits: Limits = PATIENT) -> Conversation:
    conversation = Conversation(Server("127.0.0.1", sink.port, "plain"), limits)
    conversation.open()
    return conversation


def send(pool: Pool) -> Reply:
    conversation = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
    try:
        return conversation.finish()
    finally:
        pool.give_back(conversation)


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mail-pool"]


def test_mails_share_a_connection(pool: Pool, sink: SmtpSink) -> None:
    for _ in range(3):
        send(pool)
    assert sink.verbs() == GREETED + MAILED * 3
    assert (len(sink.messages), sink.connections) == (3, 1)


def test_a_connection_takes_so_many_mails_and_no_more(pool: Pool, sink: SmtpSink) -> None:
    for _ in range(MAX_OFFERS):
        send(pool)
    assert sink.connections == 1
    assert sink.verbs()[-1] == "quit"
    send(pool)
    assert (len(sink.messages), sink.connections) == (MAX_OFFERS + 1, 2)


def test_refused_mails_count_too(pool: Pool, sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.1.1 no", times=MAX_OFFERS)
    for _ in range(MAX_OFFERS):
        with pytest.raises(NotSentError):
            send(pool)
    assert (sink.connections, sink.verbs()[-1]) == (1, "quit")


# At most so many


def test_no_more_connections_than_allowed_are_open_at_once(pool: Pool, sink: SmtpSink) -> None:
    most_open, done = 0, threading.Semaphore(0)

    def send_some() -> None:
        nonlocal most_open
        for _ in range(10):
            conversation = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
            most_open = max(most_open, len(sink.open))
            conversation.finish()
            pool.give_back(conversation)
        done.release()

    threads = [threading.Thread(target=send_some) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(done.acquire(timeout=0) for _ in threads)
    assert (len(sink.messages), most_open) == (60, MAX_CONNECTIONS)
    assert sink.connections <= MAX_CONNECTIONS + 60 // MAX_OFFERS


def test_who_comes_when_all_are_in_use_waits_for_the_first_that_is_given_back(
    pool: Pool, sink: SmtpSink
) -> None:
    lent = [pool.offer("post@example.com", "cleo@example.com", MESSAGE) for _ in range(MAX_CONNECTIONS)]
    waiter = threading.Thread(target=send, args=(pool,))
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    lent[0].finish()
    pool.give_back(lent[0])
    waiter.join(10)
    assert not waiter.is_alive()
    assert (len(sink.messages), sink.connections) == (2, MAX_CONNECTIONS)
    pool.give_back(lent[1])  # its dot was never sent
    assert sink.wait_for_goodbye(left=1)


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("answer", ["421 closing", "550 no", HANG_UP])
def test_trouble_takes_no_place_for_good(pool: Pool, sink: SmtpSink, stage: str, answer: str) -> None:
    for _ in range(MAX_CONNECTIONS + 1):
        sink.answer(stage, answer)
        if (stage, answer) == ("ehlo", "550 no"):
            sink.answer("helo", answer)
        with pytest.raises(Exception, match=stage):
            send(pool)
    send(pool)
    assert len(sink.messages) == 1


# Fewer than that


def send_side_by_side(pool: Pool, mails: int) -> list[str]:
    """Send mails from two threads; return what went wrong."""
    faults: list[str] = []

    def send_some() -> None:
        for _ in range(mails // 2):
            try:
                send(pool)
            except NotSentError as error:
                faults.append(str(error))

    threads = [threading.Thread(target=send_some) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return faults


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail"])
@pytest.mark.parametrize("answer", ["421 4.7.0 too many connections", HANG_UP])
def test_a_server_that_takes_one_connection_gets_all_mail_by_it(
    pool: Pool, sink: SmtpSink, clock: Clock, stage: str, answer: str
) -> None:
    lent = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
    sink.answer(stage, answer)
    second = threading.Thread(target=send, args=(pool,))
    second.start()
    second.join(0.1)
    assert second.is_alive()  # it waits for the first mail's connection
    lent.finish()
    pool.give_back(lent)
    second.join(10)
    assert (len(sink.messages), sink.connections, len(sink.open)) == (2, 2, 1)
    assert send_side_by_side(pool, 20) == []
    assert (len(sink.messages), sink.connections) == (22, 2)
    clock.now_s += SMALLER_FOR_S  # then it may take more
    lent = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
    send(pool)
    assert sink.connections >= 3
    lent.finish()
    pool.give_back(lent)


@pytest.mark.parametrize("stage", ["rcpt", "data"])
def test_what_a_server_says_of_a_mail_makes_no_pool_smaller(pool: Pool, sink: SmtpSink, stage: str) -> None:
    lent = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
    sink.answer(stage, "421 4.7.0 not this")
    with pytest.raises(NotSentError):
        send(pool)
    send(pool)
    lent.finish()
    pool.give_back(lent)


def test_a_server_that_is_gone_is_nobodys_to_wait_for(pool: Pool, sink: SmtpSink) -> None:
    sink.answer("connect", HANG_UP, times=4)
    assert len(send_side_by_side(pool, 4)) == 4
    assert send_side_by_side(pool, 20) == []
    lent = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
    send(pool)  # both places are there
    lent.finish()
    pool.give_back(lent)


# Use after a pause


@pytest.mark.parametrize(("pause_s", "probe"), [(PROBE_AFTER_S, []), (PROBE_AFTER_S + 0.1, ["rset"])])
def test_a_connection_that_was_quiet_is_probed_by_rset(
    pool: Pool, sink: SmtpSink, clock: Clock, pause_s: float, probe: list[str]
) -> None:
    send(pool)
    clock.now_s += pause_s
    send(pool)
    assert sink.verbs() == GREETED + MAILED + probe + MAILED


@pytest.mark.parametrize(
    "answer", ["421 4.4.2 idle", "451 4.4.2 Timeout waiting for data", "503 what?", HANG_UP, SILENCE, "what?"]
)
def test_a_probe_that_fails_is_nobodys_fault(pool: Pool, sink: SmtpSink, clock: Clock, answer: str) -> None:
    send(pool)
    clock.now_s += PROBE_AFTER_S + 1
    sink.answer("rset", answer)
    send(pool)
    assert (len(sink.messages), sink.connections) == (2, 2)


def test_a_refused_mail_does_not_spoil_the_next(pool: Pool, sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.1.1 no such reader")
    with pytest.raises(NotSentError):
        send(pool)
    send(pool)
    too_early = ["data"] if sink.pipelining else []
    assert sink.verbs() == [*GREETED, "mail", "rcpt", *too_early, "rset", *MAILED]


@pytest.mark.parametrize(
    "answer",
    ["421 4.3.2 closing", "451 4.4.2 idle", "452 4.4.5 enough", "503 5.5.1 what?", HANG_UP, SILENCE, "what?"],
)
def test_a_used_connection_that_fails_at_mail_is_replaced_at_once(
    pool: Pool, sink: SmtpSink, answer: str
) -> None:
    send(pool)
    sink.answer("mail", answer)
    send(pool)
    assert (len(sink.messages), sink.connections) == (2, 2)


@pytest.mark.parametrize("answer", ["421 4.3.2 closing", "503 5.5.1 what?", HANG_UP])
def test_a_new_connection_that_fails_at_mail_is_not_replaced(pool: Pool, sink: SmtpSink, answer: str) -> None:
    sink.answer("mail", answer)
    with pytest.raises(NotSentError):
        send(pool)
    assert sink.connections == 1


def test_it_is_tried_once_more_and_not_for_ever(pool: Pool, sink: SmtpSink) -> None:
    send(pool)
    sink.answer("mail", "421 4.7.0 too much", times=2)
    with pytest.raises(NotSentError, match="at mail: 421"):
        send(pool)
    assert sink.connections == 2


@pytest.mark.parametrize(
    ("stage", "answer"),
    [("mail", "550 5.7.1 not you"), ("mail", "450 4.7.1 slowly"), ("rcpt", "421 closing"), ("data", HANG_UP)],
)
def test_what_a_new_connection_would_not_mend_is_not_tried_again(
    pool: Pool, sink: SmtpSink, stage: str, answer: str
) -> None:
    send(pool)
    sink.answer(stage, answer)
    with pytest.raises(NotSentError):
        send(pool)
    assert sink.connections == 1


def test_a_server_that_hung_up_meanwhile_is_noticed_before_anything_is_sent(
    pool: Pool, sink: SmtpSink
) -> None:
    sink.answer("dot", "250 2.0.0 kept\r\n421 4.3.2 closing")
    send(pool)
    send(pool)
    assert sink.verbs() == (GREETED + MAILED) * 2


def test_a_mail_of_unknown_outcome_is_never_sent_again_by_the_pool(pool: Pool, sink: SmtpSink) -> None:
    send(pool)
    sink.answer("dot", ACCEPT_AND_HANG_UP)
    with pytest.raises(Exception, match="may have been sent"):
        send(pool)
    assert (len(sink.messages), sink.connections) == (2, 1)
    send(pool)
    assert (len(sink.messages), sink.connections) == (3, 2)


# Closing


def test_a_connection_too_long_idle_is_not_used(pool: Pool, sink: SmtpSink, clock: Clock) -> None:
    send(pool)
    clock.now_s += CLOSE_AFTER_S
    send(pool)
    assert sink.verbs() == [*GREETED, *MAILED, "quit", *GREETED, *MAILED]


def test_idle_connections_are_closed_without_a_next_mail(sink: SmtpSink) -> None:
    pool = Pool(lambda: connect(sink), close_after_s=0.05)
    send(pool)
    assert sink.wait_for_goodbye()
    assert sink.verbs()[-1] == "quit"
    for timer in timers():
        timer.join(10)
    assert timers() == []  # no connection, no timer
    send(pool)
    assert sink.wait_for_goodbye()
    assert sink.connections == 2
    pool.close()


def test_one_timer_looks_after_all_connections(pool: Pool) -> None:
    assert timers() == []
    for _ in range(3):
        lent = [pool.offer("post@example.com", "cleo@example.com", MESSAGE) for _ in range(MAX_CONNECTIONS)]
        for conversation in lent:
            conversation.finish()
            pool.give_back(conversation)
    assert len(timers()) == 1
    assert timers()[0].daemon


def test_closing_says_goodbye_and_the_pool_can_be_used_again(pool: Pool, sink: SmtpSink) -> None:
    send(pool)
    timer = timers()[0]
    pool.close()
    pool.close()
    assert sink.wait_for_goodbye()
    assert sink.verbs() == [*GREETED, *MAILED, "quit"]
    timer.join(10)
    assert not timer.is_alive()
    send(pool)
    assert (len(sink.messages), sink.connections) == (2, 2)


def test_what_is_under_way_when_the_pool_closes_is_finished_and_then_closed(
    pool: Pool, sink: SmtpSink
) -> None:
    conversation = pool.offer("post@example.com", "cleo@example.com", MESSAGE)
    pool.close()
    assert conversation.finish().code == 250
    pool.give_back(conversation)
    assert sink.wait_for_goodbye()
    assert timers() == []
    send(pool)
    assert (len(sink.messages), sink.connections) == (2, 2)

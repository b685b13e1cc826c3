"""A mailing under fire: a server that refuses, stalls and hangs up, and ten kills on the way (P5).

Whatever was accepted is `sent` or `unknown`, whatever is `sent` was accepted once, and nobody is forgotten.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from app import create_app
from app.bookshop import books as catalogue
from app.kit.database.file import database
from app.settings import Settings
from tests.kit.crash_rig import until
from tests.kit.site_process import Site
from tests.kit.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SmtpSink

READERS = 2000
KILLS = 10
GENRE = "Mystery"

pytestmark = pytest.mark.slow


class MoodySink(SmtpSink):
    """Refuses 10 % for now and 3 % for good, hangs up after 2 % of the dots, having taken half of those."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice
        self.moods: Counter[str] = Counter()

    def next_answer(self, stage: str) -> str | None:
        """Throw the dice for an answer."""
        thrown = self.dice.random()
        if stage == "rcpt":
            if thrown < 0.03:
                return self._note("permanent", self.dice.choice(["550 5.1.1 no such reader", "550 no"]))
            if thrown < 0.08:
                return self._note("transient", "450 4.2.0 greylisted")
        if stage == "dot":
            if thrown < 0.05:
                return self._note("transient", "451 4.3.0 disk full")
            if thrown < 0.06:
                return self._note("dropped", HANG_UP)
            if thrown < 0.07:
                return self._note("taken and dropped", ACCEPT_AND_HANG_UP)
        return super().next_answer(stage)

    def _note(self, mood: str, answer: str) -> str:
        self.moods[mood] += 1
        return answer


def subscribe_many(data_dir: Path) -> None:
    """Subscribe the readers, who have confirmed, before the site starts."""
    app = create_app(Settings(data_dir=data_dir))
    with app.app_context(), database.transaction():
        for number in range(READERS):
            catalogue.confirm(catalogue.subscribe(f"reader{number}@example.com", GENRE).id)
    app.extensions["database"].close()


def test_ten_kills_and_a_moody_server_leave_no_mail_twice_and_nobody_forgotten(tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    subscribe_many(tmp_path)
    delays = {"MAIL_RETRY_DELAYS_S": "0.3,0.6", "MAIL_PAUSE_DELAYS_S": "0.2"}
    with MoodySink(dice) as sink, Site(tmp_path, MAIL_URL=sink.url, **delays) as site:
        book = {"title": "Ten Kills and a Moody Clerk", "author": "Oskar Vane", "genre": GENRE}
        assert site.post("/api/books", book)[0] == 201
        for moment in sorted(dice.sample(range(READERS * 8 // 10), KILLS)):
            assert sink.wait_for(moment, timeout_s=120), f"{len(sink.messages)} of {moment}"
            site.kill()
            site.start()
        until(lambda: is_over(site), "the end of the mailing", within_s=180)
        accepted = Counter(sink.recipients())
        counts = site.get("/api/emails", as_operator=True)[1]["counts"]
        print(f"accepted {sum(accepted.values())}, ledger {counts}, server {dict(sink.moods)}")
    rows = ledger_rows(tmp_path)
    assert len(rows) == READERS
    assert {state for state, _ in rows.values()} <= {"sent", "failed", "suppressed", "unknown"}
    assert {policy for _, policy in rows.values()} == {"hold"}
    for reader, (state, _) in rows.items():
        allowed = {"sent": {1}, "unknown": {0, 1}}.get(state, {0})
        assert accepted[reader] in allowed, (reader, state, accepted[reader])
    assert set(accepted) <= set(rows)
    assert min(sink.moods.values()) > 0
    assert len(sink.moods) == 4


def is_over(site: Site) -> bool:
    """Say whether no mail waits to be sent."""
    counts = site.counts()
    return counts["ready"] + counts["scheduled"] + counts["running"] == 0


def ledger_rows(data_dir: Path) -> dict[str, tuple[str, str]]:
    """Return the state and the policy of every alert, by its reader."""
    with closing(sqlite3.connect(data_dir / "postroom.db")) as connection:
        sql = "SELECT to_address, state, policy FROM postroom_emails WHERE dedup_key LIKE 'book:%'"
        rows = connection.execute(sql).fetchall()
    assert len(rows) == len({row[0] for row in rows})
    return {to: (state, policy) for to, state, policy in rows}

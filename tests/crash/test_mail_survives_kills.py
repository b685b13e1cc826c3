"""The kit's main promise on real input: kills in the middle of a mailing lose no mail (P1, P2)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.site_process import Site
from tests.smtp_sink import SmtpSink

READERS = 300
THREADS = 4
KILLS = 3


@pytest.mark.slow
def test_three_kills_during_a_mailing_lose_no_mail_and_double_at_most_one_a_thread(tmp_path: Path) -> None:
    readers = [f"reader{number}@example.com" for number in range(READERS)]
    with SmtpSink() as sink, Site(tmp_path, MAIL_URL=sink.url, TASK_THREADS=str(THREADS)) as site:
        for reader in readers:
            assert site.post("/api/subscriptions", {"email": reader, "genre": "Mystery"})[0] == 201
        book = {"title": "Four Kills and a Book", "author": "Oskar Vane", "genre": "Mystery"}
        _, added = site.post("/api/books", book)
        for kill in range(1, KILLS + 1):
            assert sink.wait_for(kill * READERS // (KILLS + 1), timeout_s=60)
            site.kill()
            site.start()
        assert sink.wait_for(READERS, timeout_s=60)
        wait_until_idle(site)
        received = Counter(recipient for recipient in sink.recipients())
        assert site.get(added["job"]["url"])[1]["state"] == "done"
        assert site.counts()["failed"] == 0
    assert set(received) == set(readers)
    assert sum(received.values()) - READERS <= KILLS * THREADS


def wait_until_idle(site: Site) -> None:
    """Wait until no job waits or runs."""
    counts = site.counts()
    while counts["ready"] + counts["running"] + counts["scheduled"]:
        counts = site.counts()

"""A new user's path over HTTP with the real server: subscribe, confirm, add a book, find the mail in the inbox."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.kit.site_process import CONFIRM_LINK, PROJECT_DIR, UNSUBSCRIBE_LINK, Site


def test_a_new_user_gets_from_the_start_to_the_first_alert_in_the_inbox(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.subscribe("cleo@example.com", "Mystery")
        book = {"title": "The Last Letter", "author": "Ines Marlow", "genre": "Mystery"}
        status, added = site.post("/api/books", book)
        assert status == 201
        status, job = site.get(added["job"]["url"] + "?wait=20")
        assert (status, job["state"], job["result"]) == (200, "done", 1)
        delivered = site.get("/api/queue")[1]
        while delivered["counts"]["ready"] + delivered["counts"]["running"]:
            delivered = site.get("/api/queue")[1]
        email, _ = site.get("/api/inbox")[1]["emails"]
        assert email["to"] == "cleo@example.com"
        assert "The Last Letter" in email["subject"] + email["text"]
        status, ready = site.get("/ready")
        assert (status, ready["ready"], ready["reasons"]) == (200, True, [])


def test_links_in_mails_work_after_the_process_that_made_them_was_killed(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.post("/api/subscriptions", {"email": "cleo@example.com", "genre": "Mystery"})
        link = site.find_link("cleo@example.com", CONFIRM_LINK)
        site.kill()
        site.start()
        site.press_button(link)
        site.post("/api/books", {"title": "The Last Letter", "author": "Ines Marlow", "genre": "Mystery"})
        link = site.find_link("cleo@example.com", UNSUBSCRIBE_LINK)
        site.kill()
        site.start()
        status, page = site.post_form(urlsplit(link).path, **{"List-Unsubscribe": "One-Click"})
        assert (status, "You are unsubscribed" in page) == (200, True)


def test_a_wrong_setting_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    site = Site(tmp_path, TASK_THREADS="many")
    ran = subprocess.run(
        [sys.executable, "main.py"],
        cwd=PROJECT_DIR,
        env=site.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "TASK_THREADS" in ran.stderr
    assert "'many'" in ran.stderr
    assert "Traceback" not in ran.stderr

"""A new user's path over HTTP with the real server: subscribe, add a book, find the mail in the inbox."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.site_process import PROJECT_DIR, Site


def test_a_new_user_gets_from_the_start_to_the_first_alert_in_the_inbox(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        status, subscribed = site.post(
            "/api/subscriptions", {"email": "cleo@example.com", "genre": "Mystery"}
        )
        assert (status, subscribed["subscription"]["email"]) == (201, "cleo@example.com")
        book = {"title": "The Last Letter", "author": "Ines Marlow", "genre": "Mystery"}
        status, added = site.post("/api/books", book)
        assert status == 201
        status, job = site.get(added["job"]["url"] + "?wait=20")
        assert (status, job["state"], job["result"]) == (200, "done", 1)
        delivered = site.get("/api/queue")[1]
        while delivered["counts"]["ready"] + delivered["counts"]["running"]:
            delivered = site.get("/api/queue")[1]
        (email,) = site.get("/api/inbox")[1]["emails"]
        assert email["to"] == "cleo@example.com"
        assert "The Last Letter" in email["subject"] + email["text"]
        assert site.get("/ready") == (200, {"ready": True, "reasons": []})


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

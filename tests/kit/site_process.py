"""The real site in a process of its own: started by its own command, asked over HTTP, stopped or killed."""

from __future__ import annotations

import contextlib
import email
import html
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from email import policy
from http.client import HTTPException
from pathlib import Path
from typing import Any

PROJECT_DIR = Path(__file__).resolve().parents[2]
GUNICORN = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
SITE_UNDER_TEST = [*GUNICORN, "tests.kit.site_under_test:app"]
"""The site with the slow tasks and the deaths that tests need."""
CONFIRM_LINK = re.compile(r"\S+/confirm/\S+")
UNSUBSCRIBE_LINK = re.compile(r"\S+/unsubscribe/\S+")
POST_FORM = re.compile(r'<form[^>]*method="post" action="([^"]+)"')
SERVES = re.compile(r"serves http://localhost:(\d+)")


class Site:
    """`python3 main.py` with a data folder and environment of the test's choice; PORT=0 finds a free port."""

    folder = PROJECT_DIR

    def __init__(self, data_dir: Path, command: list[str] | None = None, **environ: str) -> None:
        self.data_dir = data_dir
        self.command = command or [sys.executable, "main.py"]
        inherited = ("PATH", "HOME", "LANG", "SYSTEMROOT", "TEMP", "VIRTUAL_ENV")
        self.environ = {name: os.environ[name] for name in inherited if name in os.environ}
        self.environ |= {"PORT": "0", "DATA_DIR": str(data_dir), "ADMIN_TOKEN": "an operator's token"}
        self.environ |= environ
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.log: list[str] = []
        self._serving = threading.Event()

    def __enter__(self) -> Site:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self, within_s: float = 20) -> Site:
        """Start the site and return when it answers."""
        self._serving.clear()
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environ,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read_log, args=(self.process,), daemon=True).start()
        assert self._serving.wait(within_s), "the site does not serve:\n" + "".join(self.log)
        try:
            assert self.get("/up", within_s)[0] == 200
        except (OSError, HTTPException) as error:
            raise AssertionError(f"the site does not answer ({error}):\n" + "".join(self.log)) from error
        return self

    def kill(self) -> None:
        """SIGKILL every process of the site, as a crash of the machine would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def stop(self, number: int = signal.SIGTERM, to_all: bool = False, within_s: float = 20) -> float:
        """Send a signal (to the whole group, as Ctrl-C does, with `to_all`); return how long the end took."""
        assert self.process is not None
        started = time.monotonic()
        if to_all:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(within_s)
        return time.monotonic() - started

    def has_processes(self) -> bool:
        """Say whether any process of the site is left."""
        assert self.process is not None
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def get(self, path: str, timeout_s: float = 30, *, as_operator: bool = False) -> tuple[int, Any]:
        """GET a path; return the status and the JSON (or text) of the answer."""
        headers = {"Authorization": f"Bearer {self.environ['ADMIN_TOKEN']}"} if as_operator else {}
        return self._ask(urllib.request.Request(self._url(path), headers=headers), timeout_s)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """POST a JSON body, as the operator; return the status and the JSON of the answer."""
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.environ['ADMIN_TOKEN']}",
        }
        data = json.dumps(body).encode()
        return self._ask(urllib.request.Request(self._url(path), data, headers, method="POST"), 30)

    def subscribe(self, address: str, genre: str, within_s: float = 30) -> None:
        """Subscribe a reader as people do it: ask, find the mail in the built-in inbox, press its button."""
        assert self.post("/api/subscriptions", {"email": address, "genre": genre})[0] == 201
        self.press_button(self.find_link(address, CONFIRM_LINK, within_s))

    def find_link(self, address: str, link: re.Pattern[str], within_s: float = 30) -> str:
        """Return the newest link of a kind in the mails that the built-in inbox has for an address."""
        give_up_at = time.monotonic() + within_s
        while True:
            for mail in self.get("/api/inbox")[1]["emails"]:
                if mail["to"] == address and (found := link.search(mail["text"])):
                    return found[0]
            assert time.monotonic() < give_up_at, f"no mail for {address} has the link: {self.counts()}"

    def confirm(self, mail: bytes) -> None:
        """Confirm a subscription by the mail that asks for it."""
        body = email.message_from_bytes(mail, policy=policy.default).get_body(("plain",))
        assert body is not None
        link = CONFIRM_LINK.search(body.get_content())
        assert link, "the mail has no link to confirm by"
        self.press_button(link[0])

    def press_button(self, url: str) -> None:
        """Open a page that a mail leads to, and press its one button."""
        status, page = self.get(urllib.parse.urlsplit(url).path)
        forms = POST_FORM.findall(page)
        assert (status, len(forms)) == (200, 1), page
        assert self.post_form(html.unescape(forms[0]))[0] == 200

    def post_form(self, path: str, **fields: str) -> tuple[int, Any]:
        """POST a form as a stranger's browser does; return the status and the page."""
        data = urllib.parse.urlencode(fields).encode()
        return self._ask(urllib.request.Request(self._url(path), data, method="POST"), 30)

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in every state."""
        counts: dict[str, int] = self.get("/api/queue")[1]["counts"]
        return counts

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _ask(self, request: urllib.request.Request, timeout_s: float) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error)

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line)
                if found := SERVES.search(line):
                    self.port = int(found[1])
                    self._serving.set()


def _read(answer: Any) -> Any:
    text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text

"""README's "Make it yours", done to the letter on a copy: the bookshop goes; the site, its jobs, its mail stay."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.house.test_readme import PROJECT_DIR, section
from tests.kit.site_process import Site

pytestmark = pytest.mark.slow

STEPS = section("Make it yours")
HOME = """
from flask import Blueprint, render_template, request

from tasks import send_email

bp = Blueprint("home_page", __name__)
menu = "Home"


@bp.route("/", methods=["GET", "POST"])
def index():
    if request.method == "POST":
        send_email(request.form["to"], "hello", name="Cleo")
    return render_template("home.html")
"""
HOME_PAGE = """{% extends "base.html" %}
{% block title %}Home{% endblock %}
{% block main %}
<h1>Mine</h1>
<form method="post" action="/">{{ csrf_field() }}<label>To <input name="to"></label> <button>Send</button></form>
{% endblock %}
"""
HELLO = "Hello, {{ name }}\n\nThis is not about books.\n"
TESTS_THAT_STAY = (
    "test_example.py",
    "kit/engine/test_jobs.py",
    "kit/engine/test_huey_flows.py",
    "kit/desk/test_status.py",
    "kit/mail/test_addresses.py",
    "kit/house/test_layout.py",
)
CSRF_FIELD = re.compile(r'name="csrf_token" value="([^"]+)"')


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project, and a database in which the bookshop has been at work."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".pythonlibs", "data", "__pycache__", ".*_cache")
    copy = shutil.copytree(PROJECT_DIR, tmp_path / "copy", ignore=left_out)
    with Site(tmp_path / "data") as site:
        site.subscribe("cleo@example.com", "Poetry")
        site.stop()
    return copy


def delete(copy: Path) -> None:
    """Do what the code block says."""
    (commands,) = re.findall(r"```\n(.*?)```", STEPS, re.DOTALL)
    assert commands == "rm -r app/bookshop tasks/bookshop.py tests/bookshop\n"
    subprocess.run(["bash", "-ec", commands], cwd=copy, check=True)


def add_first_page(copy: Path) -> None:
    """Write a first page where README says pages are found."""
    assert "`app/pages/home.py`" in STEPS
    (copy / "app/templates/emails").mkdir(exist_ok=True)
    for name, text in (
        ("pages/home.py", HOME),
        ("templates/home.html", HOME_PAGE),
        ("templates/emails/hello.txt", HELLO),
    ):
        (copy / "app" / name).write_text(text, "utf-8")


def test_without_a_first_page_the_kit_says_where_to_write_one(copy: Path, tmp_path: Path) -> None:
    delete(copy)
    site = Site(tmp_path / "data")
    site.folder = copy
    with site:
        status, page = site.get("/")
        assert (status, "app/pages/home.py" in page) == (200, True)


def test_the_bookshop_is_taken_out_as_readme_says_and_the_rest_works_on(copy: Path, tmp_path: Path) -> None:
    delete(copy)
    add_first_page(copy)
    site = Site(tmp_path / "data")
    site.folder = copy
    with site:
        status, page = site.get("/")
        token = CSRF_FIELD.search(page)
        assert (status, bool(token)) == (200, True), page
        assert site.post_form("/", to="bob@example.com", csrf_token=token[1])[0] == 200
        give_up_at = time.monotonic() + 20
        while not any(mail["subject"] == "Hello, Cleo" for mail in site.get("/api/inbox")[1]["emails"]):
            assert time.monotonic() < give_up_at, site.counts()
        for path in ("/inbox", "/sign-in", "/up", "/ready", "/api/queue"):
            assert site.get(path)[0] == 200, path
        for path in ("/desk", "/desk/emails", "/metrics"):
            assert site.get(path, as_operator=True)[0] == 200, path
        assert site.get("/nowhere")[0] == 404
    sources = [path for path in (copy / "app").rglob("*.*") if path.suffix in (".py", ".html")]
    sources += (copy / "tasks").rglob("*.py")
    left = [path.name for path in sources if re.search(r"\bbookshop\b", path.read_text("utf-8"))]
    assert left == [], "something of the bookshop is left"
    tests = [f"tests/{name}" for name in TESTS_THAT_STAY]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr

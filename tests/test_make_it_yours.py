"""README's "Make it yours", done to the letter on a copy: the bookshop goes; the site, its jobs, its mail stay."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.site_process import Site
from tests.test_readme import PROJECT_DIR, section

pytestmark = pytest.mark.slow

STEPS = section("Make it yours")
HOME = """
from flask import Blueprint, render_template, request

from tasks.emails import send_email

bp = Blueprint("home", __name__)


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
    "test_jobs.py",
    "test_huey_flows.py",
    "test_status.py",
    "test_addresses.py",
    "test_layout.py",
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
    assert all(line.startswith("rm app/") for line in commands.splitlines()), "only rm is expected there"
    subprocess.run(["bash", "-ec", commands], cwd=copy, check=True)


def take_out(copy: Path) -> None:
    """Take each name that the text names out of its file: out of the import, and out of the list it stands in."""
    sentence = re.search(r"Take (.*?), each where", STEPS, re.DOTALL)
    assert sentence, "the sentence that tells what to take out is gone"
    told = re.findall(r"((?:`\w+`(?: and )?)+)\s+out\s+of\s+`([\w/.]+)`", sentence[1])
    assert len(told) == 2
    for names, file in told:
        text = (copy / file).read_text("utf-8")
        for name in re.findall(r"\w+", names.replace("and", "")):
            text, count = re.subn(rf"\b{name}(\.\w+)?,\s*", "", text)
            assert count == 2, (
                f"{name} stands {count} times in a list of {file}, expected the import and one use"
            )
        (copy / file).write_text(text, "utf-8")


def add_first_page(copy: Path) -> None:
    """Write a first page, name it where README says pages are named, and let the links lead to it."""
    assert "`app/pages/home.py`" in STEPS
    assert "`home.index` wherever `books.index` stands in `app/`" in STEPS
    for name, text in (
        ("pages/home.py", HOME),
        ("templates/home.html", HOME_PAGE),
        ("templates/emails/hello.txt", HELLO),
    ):
        (copy / "app" / name).write_text(text, "utf-8")
    register = copy / "app/pages/__init__.py"
    text, imports = re.subn(r"(from app\.pages import \(?\s*)", r"\1home, ", register.read_text("utf-8"))
    text, loops = re.subn(r"(for module in \(\s*)", r"\1home, ", text)
    assert (imports, loops) == (1, 1)
    register.write_text(text, "utf-8")
    for path in (copy / "app").rglob("*.*"):
        if path.suffix in (".py", ".html"):
            path.write_text(path.read_text("utf-8").replace("books.index", "home.index"), "utf-8")


def test_the_bookshop_is_taken_out_as_readme_says_and_the_rest_works_on(copy: Path, tmp_path: Path) -> None:
    delete(copy)
    take_out(copy)
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
    left = [
        path.name for path in sources if re.search(r"\bcatalogue\b|\bbooks\.index", path.read_text("utf-8"))
    ]
    assert left == [], "something of the bookshop is left"
    tests = [f"tests/{name}" for name in TESTS_THAT_STAY]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr

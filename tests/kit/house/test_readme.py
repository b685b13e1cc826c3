"""README is true: its settings are the settings, its examples run, its files exist, its calls answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

from flask import Flask

from app.settings import Settings

PROJECT_DIR = Path(__file__).resolve().parents[3]
README = (PROJECT_DIR / "README.md").read_text("utf-8")
KIT_README = (PROJECT_DIR / "app/kit/README.md").read_text("utf-8")
COMPUTED_DEFAULTS = {
    "DATA_DIR": "`data/<environment>`",
    "MAIL_URL": "unset",
    "PUBLIC_URL": "`http://localhost:<PORT>`",
    "TRUSTED_HOSTS": "unset",
    "SECRET_KEY": "kept in `DATA_DIR/secret_key`",
    "ADMIN_TOKEN": "made at the start",
    "IN_FRAME": "`0`",
    "RATELIMIT_ENABLED": "`1`",
    "METRICS_OPEN": "`0`",
}


def section(title: str) -> str:
    (text,) = (text for text in (README, KIT_README) if f"\n## {title}\n" in text)
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def table(title: str) -> list[list[str]]:
    rows = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def blocks() -> list[tuple[str, str]]:
    """Return each code block with the paragraph before it."""
    return re.findall(r"([^\n]*)\n\n```\w*\n(.*?)```", README, re.DOTALL)


def written(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def test_the_settings_table_lists_every_setting_as_it_is() -> None:
    expected = []
    for setting in fields(Settings):
        variable = setting.metadata["variable"]
        default = COMPUTED_DEFAULTS.get(variable, f"`{written(setting.default)}`")
        assert variable in COMPUTED_DEFAULTS or setting.default is not MISSING
        expected.append([f"`{variable}`", setting.metadata["unit"], default, setting.metadata["meaning"]])
    assert table("Settings") == expected, "README's settings table and app/settings.py differ"


def test_it_opens_with_what_it_is_and_the_two_commands() -> None:
    opening = README.splitlines()[:12]
    assert opening[0] == "# Postroom"
    assert any(line.startswith("python3 main.py ") for line in opening)
    assert any(line.startswith("python3 main.py test") for line in opening)
    text = [line for line in README.splitlines() if not line.startswith("|")]
    assert len(text) <= 210, "what is to be read; a table is looked up"


def test_it_names_the_seven_promises() -> None:
    assert [row[0] for row in table("What is promised")] == [f"P{number}" for number in range(1, 8)]


def test_its_two_pictures_are_there_say_what_they_show_and_are_small() -> None:
    pictures = re.findall(r"!\[(.+?)\]\((\S+)\)", README)
    assert [path for _, path in pictures] == [".github/pictures/desk.png", ".github/pictures/job.png"]
    assert sum((PROJECT_DIR / path).stat().st_size for _, path in pictures) <= 300_000


def test_every_file_on_its_map_exists() -> None:
    text = section("The files").split("```")[1]
    named = re.findall(r"^(?!  )\S+|(?<=; )(?:app|tests)/\w+", text, re.MULTILINE)
    named += [
        f"app/kit/{name}"
        for line in re.findall(r"^  (\w+/(?: \w+/)*)", text, re.MULTILINE)
        for name in line.split()
    ]
    assert len(named) > 15
    assert [name for name in named if not (PROJECT_DIR / name).exists()] == []


def test_every_call_it_lists_is_routed(app: Flask) -> None:
    routes = {
        (method, re.sub("<.*?>", "<>", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    calls = re.findall(r"`([A-Z]+) (/\S*?)(?:\?\S*)?`", section("HTTP"))
    listed = {(method, re.sub("<.*?>", "<>", path)) for method, path in calls}
    assert listed <= routes
    assert {
        route for route in routes if route[1].startswith("/api/") and route[0] in ("GET", "POST")
    } <= listed


def test_its_examples_are_short() -> None:
    for title in ("Add a task", "Add a page", "Add a table", "Add an email", "Both or neither"):
        for code in re.findall(r"```\w*\n(.*?)```", section(title), re.DOTALL):
            assert len([line for line in code.splitlines() if line.strip()]) <= 8, title


TRY_THE_EXAMPLES = """
import sys
from pathlib import Path
from app import create_app
from app.settings import Settings

app = create_app(Settings(data_dir=Path(sys.argv[1])))
client = app.test_client()
with app.app_context():
    exec(Path(sys.argv[2]).read_text())
consumer = app.extensions["consumer"]
consumer.start(always=True)
token = client.get("/shout").text.partition('name="csrf_token" value="')[2].partition('"')[0]
answer = client.post("/shout", data={"text": "hello", "csrf_token": token})
job = client.get("/api" + answer.location + "?wait=20").json
books = client.get("/api/books?q=fog").json["books"]
consumer.stop()
subjects = [mail["subject"] for mail in client.get("/api/inbox").json["emails"]]
with app.app_context():
    app.extensions["database"].read("SELECT text FROM shouts")
print(answer.status_code, job["state"], job["result"], subjects, [book["title"] for book in books])
"""


def test_its_examples_run_as_they_stand(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("app", "tasks"):
        shutil.copytree(
            PROJECT_DIR / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "data")
        )
    to_run = ["from app.bookshop import books as catalogue", "from tasks.bookshop import alert_subscribers"]
    for before, code in blocks():
        file = re.search(r"`(\S+)`:$", before)
        if file:
            (copy / file[1]).parent.mkdir(exist_ok=True)
            (copy / file[1]).write_text(code, "utf-8")
        elif "import" in code:
            to_run.append(code)
    assert len(to_run) == 4
    (tmp_path / "run.py").write_text("\n".join(to_run), "utf-8")
    answer = subprocess.run(
        [sys.executable, "-c", TRY_THE_EXAMPLES, str(tmp_path / "data"), str(tmp_path / "run.py")],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "303 done HELLO! ['Welcome, Cleo'] ['A Fog of Ledgers']\n", answer.stderr


def test_every_fault_names_tests_that_exist() -> None:
    rows = table("What is guaranteed, and what is not")
    named = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row[2])]
    assert len(rows) <= len(named)
    assert [name for name in named if not (PROJECT_DIR / "tests" / name).is_file()] == []

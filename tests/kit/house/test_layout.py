"""The building: who may import whom, and how large a file may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT_DIR = Path(__file__).resolve().parents[3]

# From the ground up; a room is a module with all that its name begins. A module may import from lower floors
# and from its own room, not from another room of its floor.
FLOORS = (
    (
        "app.kit.errors",
        "app.kit.host.clock",
        "app.kit.host.known_hosts",
        "app.kit.host.private_files",
        "app.kit.plain_text",
    ),
    ("app.kit.settings",),
    (
        "app.settings",
        "app.kit.host.banner",
        "app.kit.host.connections",
        "app.kit.host.install",
        "app.kit.host.listening",
        "app.kit.host.logs",
        "app.kit.host.secret_key",
        "app.kit.host.sources",
        "app.kit.host.watch",
    ),
    ("app.kit.database",),
    ("app.kit.engine",),
    ("app.kit.mail",),
    ("app.kit.doctor",),
    ("app.kit.web",),
    ("app.kit.desk",),
    ("app.kit.register", "app.kit.yours"),
    ("app.bookshop.tables",),
    ("app.bookshop.input",),
    ("app.bookshop.subscriptions",),
    ("app.bookshop.books",),
    ("app.bookshop.links",),
    ("app.bookshop.mailing",),
    ("tasks",),
    ("app.bookshop", "app.pages"),
    ("app",),
    ("main",),
)
MOST_LINES = 300


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT_DIR).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for path in sorted(
        [PROJECT_DIR / "main.py", *PROJECT_DIR.glob("app/**/*.py"), *PROJECT_DIR.glob("tasks/**/*.py")]
    )
}


def find_room(module: str) -> tuple[int, str]:
    """Return the floor and the room of a module: the longest room name that it begins with."""
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if module == room or module.startswith((room + ".", room + "_")):
                return floor, room
    raise AssertionError(f"{module} has no floor")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield what a module imports, also inside functions; what stands in `if TYPE_CHECKING` is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write the whole name: from app.kit.mail import ledger"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imported_modules(ast.Module(node.orelse, []))
        else:
            yield from imported_modules(node)


def upward_imports(importer: str, source: str) -> list[str]:
    """List what a module imports from above, or from beside it."""
    floor, room = find_room(importer)
    wrong = []
    for imported in imported_modules(ast.parse(source)):
        if imported.split(".")[0] in ("app", "tasks", "main"):
            other_floor, other_room = find_room(imported)
            if other_floor > floor or (other_floor == floor and other_room != room):
                wrong.append(f"{importer} imports {imported}")
    return wrong


def test_no_module_imports_from_above_or_beside_it() -> None:
    wrong = [line for name, path in MODULES.items() for line in upward_imports(name, path.read_text("utf-8"))]
    assert not wrong, (
        "; ".join(wrong) + " (a new module of app/ gets its floor in tests/kit/house/test_layout.py)"
    )


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("app.kit.database.file", "import app.pages"),
        ("app.kit.database.file", "def later():\n    from app import catalogue"),
        ("app.kit.database.file", "from app.kit.mail.ledger import add"),
        ("app.kit.mail.ledger", "import tasks"),
        ("app.kit.engine.jobs.job", "from app import catalogue"),
        ("app.kit.engine.jobs.job", "from app.kit.mail.sending import send_email"),
        ("app.kit.errors", "from app.settings import Settings"),
        ("app.kit.mail.sending", "import main"),
    ],
)
def test_an_upward_import_is_seen(importer: str, source: str) -> None:
    assert len(upward_imports(importer, source)) == 1


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("app.bookshop.book_pages", "from tasks.bookshop import alert_subscribers"),
        ("app.kit.engine.jobs.job", "from app.kit.database.file import Database"),
        ("app.bookshop.books", "from app.bookshop.tables import migrations"),
        (
            "app.kit.engine.jobs.job",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.pages",
        ),
    ],
)
def test_a_downward_import_is_left_alone(importer: str, source: str) -> None:
    assert upward_imports(importer, source) == []


@pytest.mark.slow
def test_each_module_imports_alone_in_a_fresh_interpreter() -> None:
    def complaint(module: str) -> str:
        command = [sys.executable, "-W", "error", "-c", f"import {module}"]
        return subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False).stderr

    with ThreadPoolExecutor(2) as pool:
        complaints = [text for text in pool.map(complaint, MODULES) if text]
    assert not complaints, "\n".join(complaints)


def test_no_module_has_the_name_of_a_module_of_python_or_of_a_package() -> None:
    taken = set(sys.stdlib_module_names) | set(packages_distributions())
    shadows = [name for name in MODULES if name.rpartition(".")[2] in taken]
    assert not shadows, f"rename {shadows}: run from its own folder, each would hide the other of that name"


def test_no_file_is_longer_than_a_newcomer_can_hold_in_mind() -> None:
    files = [PROJECT_DIR / "main.py", *PROJECT_DIR.glob("app/**/*.*"), *PROJECT_DIR.glob("tasks/**/*.*")]
    sources = [path for path in files if path.suffix in (".py", ".html", ".css", ".js", ".txt")]
    long = {
        str(path.relative_to(PROJECT_DIR)): lines
        for path in sources
        if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert not long, f"more than {MOST_LINES} lines, so split: {long}"

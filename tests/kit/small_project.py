"""A small copy of the project to start: enough for an install, with a `uv` that only notes its calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Any

PROJECT_DIR = Path(__file__).resolve().parents[2]

FAKE_UV = """#!/bin/sh
[ "$1" = --version ] && exit ${UV_STUB:-0}
echo "$@" >> "$UV_CALLS"
while [ -n "$UV_GATE" ] && [ ! -e "$UV_GATE" ]; do sleep 0.02; done
[ -n "$UV_FAILS" ] && echo "uv says: no route to host" >&2 && exit 1
exec "$4" -m venv --without-pip "$UV_PROJECT_ENVIRONMENT"
"""

START = """
import sys
before = set(sys.modules)
from app.kit.host import install
try:
    install.ensure(tuple(sys.argv[1:]))
except install.InstallError as error:
    sys.exit(f"refused: {error}")
import json, os
print(json.dumps({
    "prefix": sys.prefix, "argv": sys.orig_argv[1:], "pid": os.getpid(),
    "imported": sorted((set(sys.modules) - before) & {"subprocess", "tomllib", "importlib.metadata"}),
}))
"""


def copy_essentials(folder: Path) -> None:
    """Copy what main.py needs before any package is there."""
    for name in (
        "main.py",
        "pyproject.toml",
        "app/__init__.py",
        "app/kit/__init__.py",
        "app/kit/errors.py",
        "app/kit/host/__init__.py",
        "app/kit/host/install.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(PROJECT_DIR / name, folder / name)


def make_bare_python(folder: Path) -> Path:
    """Make a Python without any package."""
    venv.create(folder, symlinks=True, with_pip=False)
    return folder / "bin/python"


class Project:
    """A small copy of the project, and how to start it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, make_bare_python(folder.parent / "bare")
        self.venv, self.stamp = folder / ".venv", folder / ".venv/postroom-stamp"
        self.pyproject, self.calls = folder / "pyproject.toml", folder / "uv-calls"
        self.processes: list[subprocess.Popen[str]] = []
        copy_essentials(folder)
        (folder / "start.py").write_text(START, "utf-8")
        (folder / "bin").mkdir()
        (folder / "bin/uv").write_text(FAKE_UV, "utf-8")
        (folder / "bin/uv").chmod(0o755)

    def popen(self, *arguments: str, python: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        environ = clean_environ(PATH=f"{self.folder / 'bin'}:{os.defpath}", UV_CALLS=str(self.calls))
        process = subprocess.Popen(
            [str(python or self.python), *(arguments or ("start.py",))],
            cwd=self.folder,
            env=environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def start(self, *arguments: str, python: Path | None = None, **variables: str) -> dict[str, Any]:
        """Start, expect it to get through, and return what it says of itself."""
        process = self.popen(*arguments, python=python, **variables)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        said = json.loads(output.splitlines()[-1])
        assert said["pid"] == process.pid, "it went on in another process, which signals would not reach"
        return said

    def refuse(self, *arguments: str, python: Path | None = None, **variables: str) -> str:
        """Start main.py, expect it to refuse in one line with status 1, and return what it says."""
        process = self.popen(*(arguments or ("main.py",)), python=python, **variables)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert "Traceback" not in errors
        return errors

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *raised: object) -> None:
        """End what a failed test left."""
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()

    def uv_calls(self) -> list[str]:
        return self.calls.read_text("utf-8").splitlines() if self.calls.exists() else []


def clean_environ(**variables: str) -> dict[str, str]:
    """Return the environment without what would tell an installer where to go, or that this is a Repl."""
    strange = ("UV_", "PIP_", "REPL", "VIRTUAL_ENV", "PYTHON", "CI")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return kept | variables

"""What cannot be installed is said in one sentence, and the exit status is 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.small_project import Project, clean_environ

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell, for the uv that is not one")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path / "project") as project:
        yield project


def without_ensurepip(project: Project) -> str:
    """Return a PYTHONPATH under which Python looks as on a bare Debian."""
    folder = project.folder / "debian"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n", "utf-8")
    return str(folder)


def test_without_ensurepip_it_names_the_package_to_install(project: Project) -> None:
    (project.folder / "bin/uv").unlink()
    errors = project.refuse(PYTHONPATH=without_ensurepip(project))
    assert "type `apt install python3-venv`, then start again" in errors.splitlines()[-1]


def test_a_uv_that_does_not_run_counts_as_none(project: Project) -> None:
    errors = project.refuse(PYTHONPATH=without_ensurepip(project), UV_STUB="127")
    assert "ensurepip" in errors
    assert project.uv_calls() == []


def test_without_a_network_it_says_so_and_shows_pips_own_words(project: Project) -> None:
    (project.folder / "bin/uv").unlink()
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    process = project.popen("main.py", **nobody)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "ERROR: " in errors  # pip's words, whatever they are in its version
    assert "See that this machine reaches the internet" in errors.splitlines()[-1]
    assert not project.stamp.exists()


def test_a_folder_that_cannot_be_written_is_named(project: Project) -> None:
    project.folder.chmod(0o555)
    # Root may write everywhere, unless it gives that right up.
    prefix = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    try:
        process = subprocess.run(
            [*prefix, project.python, "main.py"],
            cwd=project.folder,
            env=clean_environ(),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        project.folder.chmod(0o755)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert f"{project.folder} is not a folder that can be written" in line


def test_a_venv_that_is_a_file_is_named(project: Project) -> None:
    project.venv.write_text("", "utf-8")
    (line,) = project.refuse().splitlines()
    assert f"{project.venv} is not a folder that can be written" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[project\n", "TOMLDecodeError: Expected ']'"),
        ("[project]\nname = 'x'\n", "KeyError: 'dependencies'"),
        (
            "[project]\ndependencies = [7]\n[tool.uv]\nconstraint-dependencies = []\n",
            "requires 7, expected a text",
        ),
        (None, "FileNotFoundError"),
    ],
)
def test_a_broken_pyproject_is_named(project: Project, content: str | None, words: str) -> None:
    if content is None:
        project.pyproject.unlink()
    else:
        project.pyproject.write_text(content, "utf-8")
    (line,) = project.refuse().splitlines()
    assert "pyproject.toml" in line
    assert words in line

"""The first start: packages arrive in .venv by themselves, a stamp says so, and half installs heal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.host import install
from tests.kit.small_project import Project, clean_environ

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell, for the uv that is not one")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path / "project") as project:
        yield project


# The stamp decides


def test_the_first_start_installs_and_goes_on_inside_venv(project: Project) -> None:
    assert project.start()["prefix"] == str(project.venv)
    (call,) = project.uv_calls()
    assert call.startswith("sync --inexact --python /")
    assert call.endswith(" --no-dev")


def test_a_later_start_installs_nothing_and_imports_nothing_slow(project: Project) -> None:
    project.start()
    said = project.start(UV_FAILS="1")
    assert said["prefix"] == str(project.venv)
    assert said["imported"] == []
    assert len(project.uv_calls()) == 1


def test_options_and_arguments_survive_the_new_start(project: Project) -> None:
    arguments = ["-X", "utf8", "-W", "error", "start.py", "dev"]
    assert project.start(*arguments)["argv"] == arguments


def test_it_starts_from_any_folder(project: Project, tmp_path: Path) -> None:
    program = str(project.folder / "start.py")
    process = subprocess.run(
        [project.python, program],
        cwd=tmp_path,
        env=clean_environ(PATH=f"{project.folder / 'bin'}:{os.defpath}", UV_CALLS=str(project.calls)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout)["prefix"] == str(project.venv)


def test_a_new_dependency_is_installed_at_the_next_start(project: Project) -> None:
    project.start()
    text = project.pyproject.read_text("utf-8")
    project.pyproject.write_text(text.replace("dependencies = [", 'dependencies = [\n    "six",', 1), "utf-8")
    project.start()
    assert len(project.uv_calls()) == 2
    assert project.uv_calls()[1].split()[3] == str(project.venv / "bin/python"), ".venv is kept, and added to"


def test_the_dev_group_comes_with_the_first_test_and_is_not_taken_away_by_serving(project: Project) -> None:
    project.start()
    project.start("start.py", "dev")
    project.start()
    project.start("start.py", "dev")
    assert [call.split()[-1] for call in project.uv_calls()] == ["--no-dev", "--group=dev"]


def test_a_failed_install_is_told_and_healed_by_the_next_start(project: Project) -> None:
    errors = project.refuse(UV_FAILS="1")
    assert "uv says: no route to host" in errors
    assert errors.splitlines()[-1].startswith("Postroom: the packages could not be installed")
    assert not project.stamp.exists()
    assert project.start()["prefix"] == str(project.venv)


def test_a_half_install_is_done_again(project: Project) -> None:
    project.start()
    project.stamp.unlink()
    project.start(python=project.venv / "bin/python")
    assert len(project.uv_calls()) == 2
    assert project.stamp.exists()


def test_a_venv_whose_python_is_gone_is_made_anew(project: Project) -> None:
    project.start()
    python = project.venv / "bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert project.start()["prefix"] == str(project.venv)
    assert len(project.uv_calls()) == 2


def test_a_venv_that_is_none_any_more_does_not_start_itself_for_ever(project: Project) -> None:
    project.start()
    (project.venv / "pyvenv.cfg").unlink()
    assert project.start()["prefix"] == str(project.venv)
    assert len(project.uv_calls()) == 2


def test_a_python_exchanged_below_venv_is_noticed(project: Project) -> None:
    project.start()
    project.stamp.write_text(re.sub(r"\A3\.\d+", "3.10", project.stamp.read_text("utf-8")), "utf-8")
    project.start()
    assert len(project.uv_calls()) == 2


# Two at once


def said_line(process: subprocess.Popen[str], words: str) -> None:
    """Wait until the process says something with `words` in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def test_of_two_starts_at_once_one_installs_and_both_go_on(project: Project, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = project.popen(UV_GATE=str(gate))
    said_line(first, "installing packages")
    second = project.popen(UV_GATE=str(gate))
    said_line(second, "waiting for it")
    gate.touch()
    for process in (first, second):
        assert json.loads(process.communicate(timeout=60)[0])["prefix"] == str(project.venv)
    assert len(project.uv_calls()) == 1


def test_after_a_killed_start_the_next_waits_for_its_orphan_and_installs(
    project: Project, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = project.popen(UV_GATE=str(gate))
    while not project.uv_calls():
        assert first.poll() is None
    first.kill()
    first.wait()
    second = project.popen(UV_GATE=str(gate))
    said_line(second, "waiting for it")
    gate.touch()
    assert json.loads(second.communicate(timeout=60)[0])["prefix"] == str(project.venv)
    assert len(project.uv_calls()) == 2


# Environments that are not ours


def test_a_python_that_has_the_packages_is_left_alone(project: Project) -> None:
    assert project.start(python=Path(sys.executable))["prefix"] == sys.prefix
    assert not project.venv.exists()
    assert project.uv_calls() == []


def test_on_replit_no_venv_is_made(project: Project) -> None:
    assert project.start(python=Path(sys.executable), REPL_ID="1")["prefix"] == sys.prefix
    errors = project.refuse(REPL_ID="1")
    assert "flask>=" in errors
    assert "Type `uv sync` into the Shell, then press Run." in errors
    assert not project.venv.exists()


@pytest.mark.parametrize(
    ("requirement", "is_missing"),
    [
        ("flask", False),
        ("flask>=2", False),
        ("Flask >= 2, < 999", False),
        ("flask>=999", True),
        ("flask>=2,<3.0.0", True),
        ("email-validator>=2", False),
        ("no-such-package>=1", True),
        ("no-such-package; sys_platform == 'amiga'", False),
        ("no-such-package; sys_platform != 'amiga'", True),
        ("flask~=0.1", False),
    ],
)
def test_what_is_missing_is_known(requirement: str, is_missing: bool) -> None:
    assert bool(install._missing([requirement])) is is_missing


def test_versions_are_compared_as_numbers() -> None:
    assert install._numbers("3.10") > install._numbers("3.9.9")
    assert install._numbers("3.0.0") == install._numbers("3")
    assert install._numbers("4.0rc1") == [4]

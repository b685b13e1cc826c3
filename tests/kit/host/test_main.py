"""The commands of main.py, as processes where that is what counts."""

from __future__ import annotations

import ast
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import main
import tasks
from app.kit.engine.consumer.consumer import EmbeddedConsumer
from app.settings import Settings
from tests.kit.small_project import PROJECT_DIR, copy_essentials

SOURCE = (PROJECT_DIR / "main.py").read_text("utf-8")


def run(*arguments: str, folder: Path = PROJECT_DIR, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run main.py of `folder` to its end, from another folder."""
    environ = {name: value for name, value in os.environ.items() if name != "CI"} | variables
    return subprocess.run(
        [sys.executable, str(folder / "main.py"), *arguments],
        cwd=folder.parent,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


# Old Pythons


def old_pythons() -> list[str]:
    names = [f"python3.{minor}" for minor in range(11)]
    found = [path for name in names if (path := shutil.which(name))]
    return found + glob.glob(os.path.expanduser("~/.pyenv/versions/3.[0-9].*/bin/python"))


def test_it_parses_on_old_pythons() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 7))
    # These came after 3.0, and an old Python would stop at them without a word for people.
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Starred, ast.AsyncFunctionDef, ast.Match)
    assert [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, newer)] == []


def test_an_old_python_is_told_what_is_needed() -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 8); runpy.run_path('main.py', run_name='__main__')"
    starts = [[sys.executable, "-c", pretend]]
    for python in old_pythons():
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            starts.append([python, "main.py"])
    for start in starts:
        process = subprocess.run(start, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
        assert process.returncode == 1, start
        (line,) = process.stderr.splitlines()
        assert line.startswith("Postroom needs Python 3.11 or newer, and this is Python 3.")


# Commands


def test_an_unknown_command_is_answered_with_the_usage() -> None:
    for arguments in (["sevre"], ["serve", "now"], ["worker", "2"], ["doctor", "who"]):
        process = run(*arguments)
        assert process.returncode == 2
        wrong, usage, *_ = process.stderr.splitlines()
        assert arguments[0] in wrong
        assert usage == "usage: python3 main.py [command]"


def test_help_names_every_command() -> None:
    process = run("--help")
    assert process.returncode == 0
    assert re.findall(r"^  (\w+)", process.stdout, re.MULTILINE) == [
        "serve",
        "worker",
        "jobs",
        "backup",
        "restore",
        "doctor",
        "test",
        "benchmark",
    ]


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_wrong_setting_stops_the_start_with_one_sentence(command: str) -> None:
    process = run(command, PORT="http")
    assert process.returncode == 1
    assert process.stderr == (
        "Postroom: PORT is 'http', expected a whole number from 0 to 65535. "
        "Change it, or unset it for the default.\n"
    )


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a worker; it returns once jobs are run."""
    started = []

    def start(folder: Path = PROJECT_DIR, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(folder / "main.py"), "worker"],
            cwd=tmp_path,
            env=os.environ | {"DATA_DIR": str(tmp_path / "data")} | variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        assert process.stderr.readline() == f"Postroom worker: runs the jobs of {tmp_path / 'data'}\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_until_it_is_told_to_stop(
    start_worker: Callable[..., subprocess.Popen[str]], number: int
) -> None:
    process = start_worker()
    process.send_signal(number)
    assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 0


HANGING = """
import threading
from tasks import task

@task(timeout=0.1)
def hang():
    threading.Event().wait()
"""


@pytest.mark.slow
def test_a_worker_whose_every_thread_hangs_starts_itself_anew(
    start_worker: Callable[..., subprocess.Popen[str]], settings: Settings, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for folder in ("app", "tasks"):
        shutil.copytree(PROJECT_DIR / folder, copy / folder)
    for name in ("main.py", "pyproject.toml"):
        shutil.copy(PROJECT_DIR / name, copy)
    (copy / "tasks/hanging.py").write_text(HANGING, "utf-8")

    def ask(code: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", f"import tasks\nfrom main import app\n{code}"],
            cwd=copy,
            env=os.environ | {"DATA_DIR": str(settings.data_dir)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()

    job = ask("from tasks.hanging import hang; print(hang().id)")
    process = start_worker(copy, TASK_THREADS="1")
    assert process.stderr is not None
    for _ in range(3):  # after its third death the job is on the shelf
        assert any("Postroom worker: runs the jobs of" in line for line in process.stderr)
    assert ask(f"job = tasks.huey.job('{job}'); print(job['state'], job['deaths'])") == "failed 3"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_the_doctor_tells_by_its_exit_status_whether_something_is_wrong(tmp_path: Path) -> None:
    process = run("doctor", DATA_DIR=str(tmp_path / "data"))
    assert (process.returncode, process.stderr) == (0, "")
    assert "ok       data folder: " in process.stdout
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").touch()
    process = run("doctor", DATA_DIR=str(tmp_path / "data"))
    assert process.returncode == 1
    assert "wrong    data folder: " in process.stdout


def test_main_app_is_the_app_and_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.delitem(vars(main), "app", raising=False)
    assert main.app.extensions["settings"].data_dir == tmp_path
    assert main.app is main.app
    monkeypatch.delitem(vars(main), "app")
    with pytest.raises(AttributeError, match="no attribute 'ap'"):
        main.ap  # noqa: B018


def test_on_windows_waitress_serves_while_the_consumer_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []
    # This process is not to end with the site.
    monkeypatch.setattr(EmbeddedConsumer, "stop_for_good", EmbeddedConsumer.stop)

    def serve(app: object, **options: object) -> None:
        served.append((tasks.huey.overview()["workers"], options))

    monkeypatch.setitem(sys.modules, "waitress", SimpleNamespace(serve=serve))
    assert main._serve_with_waitress(settings) == 0
    ((workers, options),) = served
    assert len(workers) == settings.task_threads
    assert options == {"host": "0.0.0.0", "port": 5000, "threads": settings.web_threads}
    assert tasks.huey.overview()["workers"] == []
    tasks.huey.database.close()


# main.py test

SAMPLE = """
import pytest

def test_fast():
    assert True

@pytest.mark.slow
def test_slow():
    assert True
"""


def run_tests(copy: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `main.py test` of a copy, without the plugins of the tests at hand: to import them takes a second."""
    return run("test", *arguments, folder=copy, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **variables)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small copy of the project with one sample of tests."""
    folder = tmp_path / "copy"
    copy_essentials(folder)
    project = folder / "pyproject.toml"
    without_browser = re.sub(r"(?ms)^browser = \[.*?^\]", "browser = []", project.read_text("utf-8"))
    project.write_text(without_browser, "utf-8")  # else --all would install what these tests do not need
    (folder / "tests/kit").mkdir(parents=True)
    shutil.copy(PROJECT_DIR / "tests/kit/ci_plugin.py", folder / "tests/kit")
    (folder / "tests/test_sample.py").write_text(SAMPLE, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "summary"),
    [
        ([], "1 passed, 1 deselected in"),
        (["--all"], "2 passed in"),
        (["--all", "-k", "slow"], "1 passed, 1 deselected in"),
    ],
)
def test_the_fast_tests_run_or_all_of_them(copy: Path, arguments: list[str], summary: str) -> None:
    process = run_tests(copy, *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    assert summary in process.stdout.splitlines()[-1]


def test_a_failed_test_is_told_by_the_exit_status(copy: Path) -> None:
    (copy / "tests/test_sample.py").write_text("def test_it():\n    assert 1 == 2\n", "utf-8")
    process = run_tests(copy)
    assert process.returncode == 1
    assert "1 failed in" in process.stdout.splitlines()[-1]


SKIPS = """
import pytest

def test_that_skips_itself():
    pytest.skip("no database server")

@pytest.mark.skip(reason="later")
def test_that_is_marked():
    pass

def test_for_another_system():
    pytest.skip("needs Windows: waitress")

@pytest.mark.xfail
def test_of_a_known_fault():
    raise ValueError
"""


def test_ci_takes_a_skipped_test_for_a_failed_one(copy: Path) -> None:
    (copy / "tests/test_sample.py").write_text(SKIPS, "utf-8")
    process = run_tests(copy, "--all", CI="true")
    assert process.returncode == 1
    assert "skipped, which CI does not allow: no database server" in process.stdout
    assert "1 failed, 1 skipped, 1 xfailed, 1 error in" in process.stdout.splitlines()[-1]
    process = run_tests(copy, "--all")
    assert process.returncode == 0
    assert "3 skipped, 1 xfailed in" in process.stdout.splitlines()[-1]


def test_ci_takes_a_skipped_module_for_a_failed_one(copy: Path) -> None:
    (copy / "tests/test_sample.py").write_text("import pytest\npytest.importorskip('nothing')\n", "utf-8")
    process = run_tests(copy, "--all", CI="true")
    assert process.returncode == 2
    assert "1 error in" in process.stdout.splitlines()[-1]

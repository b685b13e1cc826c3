"""What a new user does, for real: from an empty folder over the net to the first mail, and to passing tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from tests.kit.site_process import Site
from tests.kit.small_project import PROJECT_DIR, clean_environ, make_bare_python


@pytest.fixture(scope="module")
def real_uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = shutil.which("uv")
    if found:
        return Path(found)
    folder = tmp_path_factory.mktemp("uv")
    venv.create(folder, symlinks=True, with_pip=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", "uv"], check=True)
    return folder / "bin/uv"


@pytest.fixture
def whole_copy(tmp_path: Path) -> Path:
    """The project as a clean clone has it."""
    left_out = shutil.ignore_patterns(
        ".git", ".venv", ".pythonlibs", "data", "uv.lock", "__pycache__", ".*_cache"
    )
    return shutil.copytree(PROJECT_DIR, tmp_path / "clone", ignore=left_out)


@pytest.fixture(params=["pip", "uv", "uv run"])
def started_by(request: pytest.FixtureRequest, real_uv: Path, whole_copy: Path, tmp_path: Path) -> list[str]:
    """What stands before main.py in a user's command; uv is in tmp_path/tools unless pip is to install."""
    (tmp_path / "tools").mkdir()
    if request.param != "pip":
        (tmp_path / "tools/uv").symlink_to(real_uv)
    if request.param == "uv run":
        return [str(real_uv), "run", "--directory", str(whole_copy)]
    return [str(make_bare_python(tmp_path / "bare"))]


@pytest.mark.slow
def test_a_new_user_gets_to_the_first_mail_and_to_passing_tests(
    started_by: list[str], whole_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = clean_environ(PATH=f"{tmp_path / 'tools'}:{os.defpath}", UV_PYTHON=sys.executable)
    command = [*started_by, str(whole_copy / "main.py")]
    site = Site(tmp_path / "data", command, **environ)
    started = time.monotonic()
    try:
        site.start(within_s=120)
        site.subscribe("cleo@example.com", "Poetry")
        _, added = site.post("/api/books", {"title": "Odes", "author": "Sappho", "genre": "Poetry"})
        assert site.get(added["job"]["url"] + "?wait=20")[1]["state"] == "done"
        while "Odes" not in (mail := site.get("/api/inbox")[1]["emails"][0])["subject"]:
            assert time.monotonic() < started + 120
        first_s = time.monotonic() - started
        assert mail["to"] == "cleo@example.com"
        site.stop()
        assert not site.has_processes()
        started = time.monotonic()
        site.start()
        next_s = time.monotonic() - started
    finally:
        site.kill()
    with capsys.disabled():
        print(f"\nfrom a clean copy to the first alert: {first_s:.1f} s; the next start: {next_s:.1f} s")
    tests = subprocess.run(
        [*command, "test", "tests/kit/host/test_hosts.py"],
        cwd=whole_copy,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert re.fullmatch(r"=+ \d+ passed.* in .*=+", tests.stdout.splitlines()[-1])

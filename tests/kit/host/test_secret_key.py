"""The key that is kept: one for all processes of a site, made once, never half, never thrown away unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import create_app
from app.bookshop import links as tokens
from app.kit.host import secret_key
from app.kit.host.secret_key import SecretKeyError
from app.settings import Settings

PROJECT_DIR = Path(__file__).resolve().parents[3]
PRINT_KEY = (
    "from app.kit.host.secret_key import *; from app.settings import Settings; "
    "print(secret_key(Settings.read()))"
)


@pytest.fixture(autouse=True)
def as_a_new_process() -> Iterator[None]:
    """Forget what this process has read."""
    secret_key._kept_key.cache_clear()
    yield
    secret_key._kept_key.cache_clear()


def read(folder: Path, key: str = "") -> str:
    return secret_key.secret_key(Settings(data_dir=folder, secret_key=key))


def test_what_is_set_is_taken_and_nothing_is_kept(tmp_path: Path) -> None:
    assert read(tmp_path / "data", "of the environment") == "of the environment"
    assert not (tmp_path / "data").exists()


def test_a_key_is_made_once_and_then_the_same(tmp_path: Path) -> None:
    first = read(tmp_path / "data")
    assert len(first) >= 64
    secret_key._kept_key.cache_clear()
    assert read(tmp_path / "data") == first
    assert read(tmp_path / "other") != first
    assert set(os.listdir(tmp_path / "data")) == {"secret_key", "secret_key.lock"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    read(tmp_path)
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_processes_that_start_together_have_the_same(tmp_path: Path) -> None:
    environ = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "SECRET_KEY": ""}
    command = [sys.executable, "-c", PRINT_KEY]
    started = [
        subprocess.Popen(command, cwd=PROJECT_DIR, env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    keys = [process.communicate(timeout=60)[0].strip() for process in started]
    assert len(set(keys)) == 1
    assert keys[0] == read(tmp_path / "data")


def test_a_key_that_another_process_makes_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, looks = secret_key._read, []

    def read_late(path: Path) -> str:
        looks.append(path)
        if len(looks) == 2:  # with the lock in hand
            path.write_text("x" * 40)
        return original(path)

    monkeypatch.setattr(secret_key, "_read", read_late)
    assert read(tmp_path) == "x" * 40


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 64])
def test_an_empty_file_is_filled_and_the_log_says_what_that_means(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    key = read(tmp_path)
    assert (tmp_path / "secret_key").read_text().strip() == key
    assert "stop working" in caplog.text
    assert key not in caplog.text


@pytest.mark.parametrize("content", [b"too short", b"\xff" * 64, b"two lines\n" * 8])
def test_a_file_that_holds_no_key_is_left_alone_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    with pytest.raises(SecretKeyError, match="delete it") as refused:
        read(tmp_path)
    assert str(tmp_path / "secret_key") in str(refused.value)
    assert "too short" not in str(refused.value)
    assert (tmp_path / "secret_key").read_bytes() == content


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret_key").mkdir()
    with pytest.raises(SecretKeyError, match="cannot be read"):
        read(tmp_path)


def test_where_nothing_can_be_kept_a_key_of_this_process_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder can be made in a file")
    key = read(tmp_path / "file" / "data")
    assert len(key) >= 64
    assert read(tmp_path / "file" / "data") == read(tmp_path / "file" / "other") == key
    assert "SECRET_KEY" in caplog.text
    assert key not in caplog.text


def test_building_the_app_reads_and_writes_no_file(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data"))
    assert app.secret_key
    assert not (tmp_path / "data").exists()


def test_links_outlive_a_restart(tmp_path: Path) -> None:
    class Reader:
        id, email = 7, "cleo@example.com"

    def link() -> str:
        with create_app(Settings(data_dir=tmp_path / "data")).app_context():
            return tokens.unsubscribe_url(Reader())

    before = link()
    secret_key._kept_key.cache_clear()
    assert link() == before


def test_a_start_with_a_broken_key_ends_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("broken")
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--check-config", "main:app"]
    environ = {**os.environ, "DATA_DIR": str(tmp_path), "SECRET_KEY": ""}
    ran = subprocess.run(command, cwd=PROJECT_DIR, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "holds no key" in ran.stderr
    assert "Traceback" not in ran.stderr

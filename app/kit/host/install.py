"""The packages: installs what pyproject.toml names into .venv, and starts the command again inside it.

Standard library only. A start that finds all in place passes in a few ms, so whatever only an install needs
is imported inside the functions.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from app.kit.errors import PostroomError

PROJECT_DIR = Path(__file__).resolve().parents[3]
PYPROJECT = PROJECT_DIR / "pyproject.toml"
VENV_DIR = PROJECT_DIR / ".venv"
VENV_PYTHON = VENV_DIR / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = VENV_DIR / "postroom-stamp"
"""Written last by an install: Python's version, the groups, and pyproject.toml as it was then."""


class InstallError(PostroomError):
    """The packages cannot be installed; the message says why and what to do."""


def ensure(groups: tuple[str, ...] = ()) -> None:
    """Return once the packages, and those of the dependency `groups`, are there to import.

    To get there it may install them and start the running command again inside .venv. An environment of the
    user's own that has the packages is left as it is, and so is Replit's: no .venv is ever made there.

    Raises: InstallError when the packages cannot be had.
    """
    on_replit = bool(os.environ.get("REPL_ID"))
    if not on_replit and VENV_DIR.is_dir() and os.path.samefile(sys.prefix, VENV_DIR):
        if _is_stamped(groups, _version_text(*sys.version_info[:2])):
            return
    else:
        if not on_replit and _is_stamped(groups):
            with suppress(OSError):  # the Python that .venv was made from is gone: install anew
                _restart()
        missing = _missing(_read_project(groups)[1])
        if not missing:
            return
        if on_replit:
            raise InstallError(
                f"packages are missing ({', '.join(missing)}). Type `uv sync` into the Shell, then press Run."
            )
    try:
        _install(groups)
        _restart()
    except OSError as error:
        raise InstallError(f"installing into .venv failed ({error}). Delete .venv, start again.") from error


def _is_stamped(groups: tuple[str, ...], version: str | None = None) -> bool:
    """Say whether the last install ended well and pyproject.toml has not changed since.

    With `version`, it must have been for that Python too: a system upgrade may exchange the one below .venv.
    """
    try:
        stamped_version, stamped_groups, described = STAMP.read_text("utf-8").split("\n", 2)
        return (
            described == PYPROJECT.read_text("utf-8")
            and set(groups) <= set(stamped_groups.split())
            and version in (None, stamped_version)
            and (VENV_DIR / "pyvenv.cfg").is_file()  # without it we would start again for ever
        )
    except (OSError, ValueError):
        return False


def _restart() -> NoReturn:
    """Start this very command inside .venv: in the place of this process, on Windows as its child."""
    os.environ.pop("PYTHONHOME", None)  # it would lead out of .venv again
    command = [str(VENV_PYTHON), *sys.orig_argv[1:]]
    if sys.platform != "win32":
        os.execv(command[0], command)
    import signal
    import subprocess

    child = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child as well: it decides, we wait
    sys.exit(child.wait())


# What is needed, and what is here


def _read_project(groups: tuple[str, ...]) -> tuple[str, list[str], list[str]]:
    """Return pyproject.toml's text, the direct dependencies, and the pins of everything they bring."""
    import tomllib

    try:
        text = PYPROJECT.read_text("utf-8")
        tables = tomllib.loads(text)
        requirements = list(tables["project"]["dependencies"])
        for group in groups:
            requirements += tables["dependency-groups"][group]
        pins = list(tables["tool"]["uv"]["constraint-dependencies"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstallError(
            f"pyproject.toml cannot be used ({type(error).__name__}: {error}). "
            "Mend it, or bring it back from git."
        ) from error
    for entry in requirements + pins:
        if not isinstance(entry, str):
            raise InstallError(f"pyproject.toml requires {entry!r}, expected a text such as 'flask>=3.1'.")
    return text, requirements, pins


def _missing(requirements: list[str]) -> list[str]:
    """List what the running Python lacks; a bound that is not of the simple kinds is taken as met."""
    from importlib.metadata import PackageNotFoundError, version

    missing = []
    for requirement in requirements:
        wanted, _, marker = (part.strip() for part in requirement.partition(";"))
        name = re.match(r"[\w.-]*", wanted)
        low, high = (re.search(sign + r"\s*([\d.]+)", wanted) for sign in (">=", "<"))
        if name is None or not _applies(marker):
            continue
        try:
            found = _numbers(version(name[0]))
        except PackageNotFoundError:
            missing.append(wanted)
            continue
        if (low and found < _numbers(low[1])) or (high and found >= _numbers(high[1])):
            missing.append(wanted)
    return missing


def _applies(marker: str) -> bool:
    match = re.fullmatch(r"sys_platform\s*([!=]=)\s*['\"](\w+)['\"]", marker)
    return not marker or bool(match and (match[2] == sys.platform) == (match[1] == "=="))


def _numbers(version: str) -> list[int]:
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def _version_text(major: int, minor: int) -> str:
    return f"{major}.{minor}"


# Installing


def _install(groups: tuple[str, ...]) -> None:
    """Bring .venv up to pyproject.toml; whoever comes second waits, and finds it done."""
    text, requirements, pins = _read_project(groups)
    for path in (PROJECT_DIR, VENV_DIR):
        if os.path.lexists(path) and not (path.is_dir() and os.access(path, os.W_OK)):
            raise InstallError(
                f"packages cannot be installed: {path} is not a folder that can be written. "
                "Make it one, or start with a Python that has the packages."
            )
    with _turn() as turn:
        uv = _find_uv()
        version = _venv_version(needs_pip=not uv)
        if version and _is_stamped(groups, version):
            return
        _say("installing packages into .venv (at the first start, and when pyproject.toml changes)")
        STAMP.unlink(missing_ok=True)
        if not version:
            _clear()
        if uv:
            python = str(VENV_PYTHON) if version else _base_python()
            chosen = [f"--group={group}" for group in groups] or ["--no-dev"]
            installed = _run([uv, "sync", "--inexact", "--python", python, *chosen], turn)
        else:
            installed = bool(version) or _make_venv(turn)
            installed = installed and _pip_install(requirements, pins, turn)
        if not installed:
            raise InstallError(
                "the packages could not be installed; the lines above say why. "
                "See that this machine reaches the internet, then start again."
            )
        STAMP.write_text(f"{_venv_version()}\n{' '.join(groups)}\n{text}", "utf-8")
        _say("the packages are installed")


@contextmanager
def _turn() -> Iterator[int]:
    """Let one install run at a time; the lock frees itself when its holder and its children are gone."""
    with PYPROJECT.open("rb") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # nobody can read locked bytes there, so take one beyond the end
            while True:
                with suppress(OSError):  # it tries for 10 s, then raises
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("another start is installing the packages; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks: go on alone
        yield file.fileno()


def _find_uv() -> str | None:
    """Find a uv that runs: a version manager may leave a stub on PATH that does not."""
    import shutil
    import subprocess

    uv = shutil.which("uv")
    if uv and subprocess.call([uv, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return uv
    return None


def _venv_version(needs_pip: bool = False) -> str | None:
    """Ask the Python in .venv for its version; None when it is not there, or not fit to install into."""
    import subprocess

    code = "import sys; print(*sys.version_info[:2]); sys.exit(sys.prefix == sys.base_prefix)"
    command = [str(VENV_PYTHON), "-c", "import pip; " + code if needs_pip else code]
    try:
        output = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True)
        major, minor = map(int, output.split())
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return _version_text(major, minor) if (major, minor) >= (3, 11) else None


def _clear() -> None:
    """Remove a .venv that is of no use any more, so that it can be made anew."""
    import shutil

    if VENV_DIR.exists():
        _say(".venv has no Python that can be used; making it anew")
        shutil.rmtree(VENV_DIR)


def _base_python() -> str:
    return getattr(sys, "_base_executable", None) or sys.executable  # not the one of some environment


def _make_venv(turn: int) -> bool:
    from importlib.util import find_spec

    if find_spec("ensurepip") is None:
        raise InstallError(
            "this Python cannot make .venv, because its part ensurepip is not installed. "
            "On Debian and Ubuntu type `apt install python3-venv`, then start again."
        )
    return _run([_base_python(), "-m", "venv", str(VENV_DIR)], turn)


def _pip_install(requirements: list[str], pins: list[str], turn: int) -> bool:
    constraints = VENV_DIR / "constraints.txt"
    constraints.write_text("\n".join(pins), "utf-8")
    pip = [str(VENV_PYTHON), "-m", "pip", "install", "--no-user", "--disable-pip-version-check"]
    return _run([*pip, "-c", str(constraints), *requirements], turn)


def _run(command: list[str], turn: int) -> bool:
    """Run an installer in view of the user; it holds our turn too, should we be killed before it ends."""
    import subprocess

    environ = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(VENV_DIR)}
    environ.pop("VIRTUAL_ENV", None)  # uv warns when it is another one than ours
    kept = () if sys.platform == "win32" else (turn,)
    return subprocess.call(command, cwd=PROJECT_DIR, env=environ, pass_fds=kept) == 0


def _say(text: str) -> None:
    print(f"Postroom: {text}", file=sys.stderr, flush=True)

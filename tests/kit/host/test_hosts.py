"""What hosts and installers read, held against what the project needs: .replit, replit.nix, CI, the pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from app.settings import Settings

PROJECT_DIR = Path(__file__).resolve().parents[3]
PYPROJECT = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text("utf-8"))
REPLIT = tomllib.loads((PROJECT_DIR / ".replit").read_text("utf-8"))
PINS = [Requirement(text) for text in PYPROJECT["tool"]["uv"]["constraint-dependencies"]]
GROUPS = PYPROJECT["dependency-groups"]
PINNED = {canonicalize_name(pin.name): pin for pin in PINS if pin.marker is None or pin.marker.evaluate()}


# Replit


def test_replit_has_one_port_and_it_is_the_one_we_listen_on() -> None:
    assert REPLIT["ports"] == [{"localPort": Settings.read({}).port, "externalPort": 80}]


def test_replit_runs_main_everywhere() -> None:
    (workflow,) = REPLIT["workflows"]["workflow"]
    *before, start = workflow["tasks"]
    assert REPLIT["workflows"]["runButton"] == workflow["name"]
    assert [task["task"] for task in before] == ["packager.installForAll"]
    assert start == {"task": "shell.exec", "args": "python main.py", "waitForPort": Settings.read({}).port}
    assert REPLIT["run"] == REPLIT["deployment"]["run"] == ["python", REPLIT["entrypoint"]]
    assert (PROJECT_DIR / REPLIT["entrypoint"]).is_file()


def test_replit_publishes_to_a_machine_that_stays_awake_and_installs_there() -> None:
    assert REPLIT["deployment"]["deploymentTarget"] == "vm"
    assert REPLIT["deployment"]["build"] == ["uv", "sync", "--no-dev"]  # no lock is committed: not --frozen


def test_replits_python_is_one_the_project_accepts() -> None:
    (module,) = REPLIT["modules"]
    accepted = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert module.removeprefix("python-") + ".0" in accepted


def test_nothing_in_the_project_leads_replits_installer_astray() -> None:
    # Each of these would choose another installer, another Python, or a build of the project as a package.
    for name in ("requirements.txt", ".python-version", "conftest.py", "poetry.lock"):
        assert not (PROJECT_DIR / name).exists(), name
    assert REPLIT["disableGuessImports"] is True
    assert "build-system" not in PYPROJECT
    assert PYPROJECT["tool"]["uv"]["package"] is False


def test_replit_nix_brings_no_second_python() -> None:
    text = re.sub(r"#.*", "", (PROJECT_DIR / "replit.nix").read_text("utf-8")).strip()
    whole = re.fullmatch(r"\{\s*pkgs\s*\}:\s*\{\s*deps\s*=\s*\[(.*?)\];\s*\}", text, re.DOTALL)
    assert whole, "replit.nix is not of the form { pkgs }: { deps = [ ]; }"
    assert "python" not in whole[1]


# Continuous integration


def test_ci_runs_every_test_on_the_oldest_python_and_a_new_one() -> None:
    run = PROJECT_DIR / ".ci/run"
    assert run.stat().st_mode & 0o111
    assert run.read_text("utf-8").rstrip().endswith("python3 main.py test --all")
    workflow = (PROJECT_DIR / ".github/workflows/ci.yml").read_text("utf-8")
    assert "run: .ci/run" in workflow
    versions = re.findall(r'"(3\.\d+)"', workflow)
    assert ">=" + versions[0] == PYPROJECT["project"]["requires-python"]
    assert len(versions) == 2


# Packages


def is_installed(group: list[str]) -> bool:
    """Say whether a group's first package is there."""
    return find_spec(Requirement(group[0]).name) is not None


def needed() -> dict[str, str]:
    """Return the installed version of every package that the project needs here, direct or not."""
    found: dict[str, str] = {}
    waiting = [*PYPROJECT["project"]["dependencies"], *GROUPS["dev"]]
    waiting += GROUPS["browser"] if is_installed(GROUPS["browser"]) else []
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        assert not requirement.extras, f"{requirement}: this test does not follow extras yet"
        package = distribution(name)
        found[name] = package.version
        waiting += package.requires or ()
    return found


def test_every_package_that_gets_installed_is_pinned_to_what_is_installed() -> None:
    missing = [f'"{name}=={version}"' for name, version in needed().items() if name not in PINNED]
    assert not missing, f"add to constraint-dependencies in pyproject.toml: {missing}"
    other = {
        name: (version, str(PINNED[name].specifier))
        for name, version in needed().items()
        if str(PINNED[name].specifier) != f"=={version}"
    }
    assert not other, f"installed and pinned differ: {other}"


@pytest.mark.skipif(
    not is_installed(GROUPS["browser"]), reason="needs every group: python3 main.py test --all installs them"
)
def test_no_pin_is_left_of_a_package_that_nobody_needs() -> None:
    stale = sorted(set(PINNED) - set(needed()))
    assert not stale, f"take out of constraint-dependencies in pyproject.toml: {stale}"


def module_imports(path: Path) -> Iterator[str]:
    """Yield the packages that a file imports at its top."""
    tree: Any = ast.parse(path.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_what_runs_before_the_install_needs_only_the_standard_library() -> None:
    for name in (
        "main.py",
        "app/__init__.py",
        "app/kit/host/install.py",
        "app/kit/errors.py",
        "app/kit/host/known_hosts.py",
        "app/settings.py",
    ):
        foreign = set(module_imports(PROJECT_DIR / name)) - sys.stdlib_module_names - {"app"}
        assert not foreign, name

"""The names of Huey the engine relies on beyond its documentation: each must exist, and none be used unlisted."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import huey.api
import huey.consumer
import huey.contrib.asyncio
import huey.exceptions
import huey.registry
import huey.storage
import huey.utils
import pytest
from huey import MemoryHuey
from huey.consumer import BaseProcess, Consumer, Worker
from huey.registry import Message, Registry

ENGINE = Path(__file__).resolve().parents[3] / "app" / "kit" / "engine"

a_huey = MemoryHuey("names")
a_consumer = Consumer(a_huey)
a_task = a_huey.task(name="a_task")(lambda: None).task_class()

# Where each lives, and its name.
NAMES: list[tuple[Any, str]] = [
    (a_huey, "_emit"),
    (a_huey, "_immediate"),
    (a_huey, "_pipeline_results"),
    (a_huey, "_registry"),
    (a_huey, "_signal"),
    (a_huey._signal, "receivers"),
    (a_huey, "get_raw"),
    (a_huey, "_execute"),
    (a_huey, "_locks"),
    (a_huey, "_revoke_keys"),
    (a_huey, "_check_revoked"),
    (a_huey, "_pre_execute"),
    (a_huey, "_run_pre_execute"),
    (a_huey, "_check_chord"),
    (a_huey, "_abort_chord_member"),
    (a_huey, "_requeue_task"),
    (a_huey, "_get_timestamp"),
    (a_huey, "build_error_result"),
    (a_huey, "put_result"),
    (a_huey, "delete"),
    (a_huey, "execute"),
    (a_huey, "serialize_task"),
    (a_huey, "deserialize_task"),
    (a_huey, "add_schedule"),
    (a_huey, "get_storage"),
    (a_huey, "get_task_wrapper_class"),
    (a_huey, "create_consumer"),
    (a_huey, "notify_interrupted_tasks"),
    (a_huey, "_startup"),
    (a_huey, "_shutdown"),
    (a_huey._registry, "_registry"),
    (a_huey._registry, "_periodic_tasks"),
    (a_huey._registry, "periodic_tasks"),
    (a_huey._registry, "task_to_string"),
    (a_consumer, "_create_process"),
    (a_consumer, "_create_worker"),
    (a_consumer, "_create_scheduler"),
    (a_consumer, "_set_signal_handlers"),
    (a_consumer, "_health_check_interval"),
    (a_consumer, "_stop_flag_timeout"),
    (a_consumer, "check_worker_health"),
    (a_consumer, "worker_threads"),
    (a_consumer, "scheduler"),
    (a_consumer, "stop_flag"),
    (BaseProcess, "process_name"),
    (BaseProcess, "loop"),
    (BaseProcess, "shutdown"),
    (a_task, "on_complete"),
    (a_task, "extend_data"),
    (a_task, "expires_resolved"),
    (a_task, "resolve_expires"),
    (a_task, "retry_backoff"),
    (a_task, "_deadline"),
    (a_huey._registry, "create_message"),
    (huey.api, "TaskWrapper"),
    (huey.api, "ResultGroup"),
    (huey.exceptions, "RETRYING_EXCEPTIONS"),
    (huey.storage, "EmptyData"),
    (huey.utils, "Error"),
    (huey.utils, "local_to_utc"),
    (huey.contrib.asyncio, "aget_result"),
    (huey.utils, "SKIPPED"),
]

# What the engine overrides, or calls by position: the function and its parameters.
SIGNATURES: list[tuple[Any, list[str]]] = [
    (huey.api.Huey._execute, ["self", "task", "timestamp"]),
    (huey.api.Huey._run_pre_execute, ["self", "task"]),
    (huey.api.Huey._requeue_task, ["self", "task", "timestamp", "retry_eta"]),
    (huey.api.Huey._check_chord, ["self", "cc", "value"]),
    (huey.api.Huey._abort_chord_member, ["self", "task", "value"]),
    (huey.api.Huey.put_result, ["self", "key", "data"]),
    (huey.api.Huey.delete, ["self", "key"]),
    (huey.api.Huey.build_error_result, ["self", "task", "exception"]),
    (huey.api.TaskWrapper.create_task, ["self", "func", "context", "name", "settings"]),
    (
        Worker.__init__,
        ["self", "huey", "stop_flag", "default_delay", "max_delay", "backoff", "max_tasks"],
    ),
    (BaseProcess.__init__, ["self", "huey", "stop_flag"]),
    (
        huey.storage.BaseStorage.wait_result,
        ["self", "key", "timeout", "backoff", "max_delay"],
    ),
    (huey.storage.BaseStorage.put_data, ["self", "key", "value", "is_result"]),
    (huey.storage.BaseStorage.put_if_empty, ["self", "key", "value", "ttl"]),
]


def files_with(name: str) -> str:
    """Name the files of the engine to mend when Huey renames something."""
    return ", ".join(
        path.name for path in sorted(ENGINE.rglob("*.py")) if name in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=lambda value: value if type(value) is str else "")
def test_huey_still_has_the_name(owner: Any, name: str) -> None:
    assert hasattr(owner, name), f"this Huey has no {name}: mend {files_with(name)} of app/kit/engine"
    assert files_with(name), f"{name} is not used any more: take it off this list"


@pytest.mark.parametrize(
    ("function", "parameters"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", "")
)
def test_huey_still_calls_it_with_the_same_parameters(function: Any, parameters: list[str]) -> None:
    found, name = list(inspect.signature(function).parameters), function.__qualname__
    owner = name.split(".")[0] if "__init__" in name else name.split(".")[1]
    assert found == parameters, (
        f"this Huey calls {name} otherwise: mend {files_with(owner)} of app/kit/engine"
    )


def test_a_message_has_the_fields_that_the_codec_writes() -> None:
    assert {"id", "name", "args", "kwargs", "on_complete", "on_error", "chord_config"} <= set(Message._fields)


def private_names_of_huey() -> set[str]:
    """Gather every private name of the objects the engine derives from or reaches into."""
    owners = (a_huey, a_consumer, a_huey._registry, a_task, Worker, BaseProcess, Registry)
    names = {name for owner in owners for name in dir(owner)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("*.py")), ids=lambda path: path.name)
def test_every_private_name_of_huey_that_is_used_is_listed_here(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert used & private_names_of_huey() <= {name for _, name in NAMES}, "add it to NAMES"

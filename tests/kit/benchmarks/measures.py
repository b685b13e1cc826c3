"""The contestants, one round of one measure of one of them, and the measures of their queues."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.benchmarks import machine, rivals
from tests.kit.benchmarks.table import Row, Value

DRIVER_WITHIN_S = 30 * 60
LAST_WORDS = 15
NO_REDIS = "redis://127.0.0.1:1/0"
"""Nobody listens there; a module only wants an address when it is imported."""


class FailedError(Exception):
    """A measure could not be taken; the message says why."""


@dataclass
class Contestant:
    """A column of the table. What its module says of itself is added by `introduce`."""

    key: str
    module: str
    environ: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    needs_redis: bool = False
    in_bulk: str = ""
    durable: str = ""
    can_delay: bool = False
    can_wait: bool = False
    sqlite: str = ""

    @property
    def is_postroom(self) -> bool:
        """Say whether it is this project, and not a rival."""
        return self.module.startswith("postroom")

    @property
    def python(self) -> str:
        """Name the Python that has its packages."""
        return sys.executable if self.is_postroom else str(rivals.PYTHON)


def contestants() -> list[Contestant]:
    """Return all of them, in the order of the table's columns."""
    return [
        Contestant("postroom", "postroom", {"BENCHMARK_SYNCHRONOUS": "FULL"}),
        Contestant("postroom_normal", "postroom", {"BENCHMARK_SYNCHRONOUS": "NORMAL"}),
        *(
            Contestant(module, module)
            for module in (
                "huey_sqlite",
                "huey_redis",
                "celery_redis",
                "celery_acks_late",
                "rq_redis",
                "dramatiq_redis",
                "flexiq_sqlite",
                "firm_sqlite",
            )
        ),
    ]


@dataclass(frozen=True)
class Run:
    """One round of one measure of one contestant; `folder` is empty, its own, and goes afterwards."""

    contestant: Contestant
    folder: Path
    round: int
    is_quick: bool = False


@dataclass(frozen=True)
class Measure:
    """What `python3 main.py benchmark NAME` measures: the rows it fills, and the function that fills them.

    `take` returns a value for each row's key, or raises FailedError. With `together` all contestants are
    measured at the same time, for measures that mostly wait.
    """

    name: str
    rows: tuple[Row, ...]
    take: Callable[[Run], Mapping[str, Value]]
    applies_to: Callable[[Contestant], bool] = lambda contestant: True
    together: bool = False


@dataclass(frozen=True)
class Stage:
    """Where a run takes place: the environment for its processes, and the redis-server if it has one."""

    environ: dict[str, str]
    redis_pid: int | None


@contextmanager
def stage(run: Run) -> Iterator[Stage]:
    """Prepare a contestant's folder, its environment and its redis-server; at the end nothing of them runs.

    Raises: FailedError when there is no redis-server that starts.
    """
    contestant, data = run.contestant, run.folder / "data"
    data.mkdir(parents=True)
    redis_url, redis_pid = NO_REDIS, None
    with ExitStack() as end:
        end.callback(machine.kill_all_of, run.folder)
        if contestant.needs_redis:
            try:
                redis_url, redis_pid = end.enter_context(rivals.redis_server(run.folder / "redis"))
            except (OSError, RuntimeError) as error:
                raise FailedError(str(error)) from error
        own = {
            "BENCHMARK_CONTESTANT": contestant.module,
            "BENCHMARK_FOLDER": str(data),
            "BENCHMARK_MARKS": str(run.folder / "marks"),
            "BENCHMARK_REDIS": redis_url,
        }
        yield Stage(rivals.environ_for(contestant.python) | dict(contestant.environ) | own, redis_pid)


def drive(run: Run, measure: str, **options: object) -> dict[str, Any]:
    """Have driver.py take a measure, in a process of its own.

    Raises: FailedError with the last line that it said.
    """
    with stage(run) as scene:
        return ask_driver(run, scene, measure, **options)


def ask_driver(run: Run, scene: Stage, measure: str, **options: object) -> dict[str, Any]:
    """Have driver.py take a measure on a stage that is there already.

    Raises: FailedError with the last line that it said.
    """
    command = [run.contestant.python, "-m", "tests.kit.benchmarks.driver", run.contestant.module, measure]
    command += [f"{key}={value}" for key, value in options.items()]
    log = run.folder / "driver.log"
    with log.open("wb") as errors:
        try:
            driver = subprocess.run(
                command,
                cwd=rivals.PROJECT_DIR,
                env=scene.environ,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=DRIVER_WITHIN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FailedError(str(error)) from error
    if driver.returncode == 0:
        return dict(json.loads(driver.stdout.splitlines()[-1]))
    said = log.read_text("utf-8", "replace").splitlines() or [f"it ended with {driver.returncode}"]
    print("\n".join(said[-LAST_WORDS:]), file=sys.stderr, flush=True)
    raise FailedError(said[-1])


def introduce(contestant: Contestant, folder: Path) -> None:
    """Import a contestant's module and note what it says of itself.

    Raises: FailedError when it cannot be imported, or needs a redis-server that is not there.
    """
    if not Path(contestant.python).exists():
        raise FailedError("it could not be installed; the lines above say why")
    said = drive(Run(contestant, folder, 0), "describe")
    contestant.name = said["name"]
    if said["needs_redis"] and rivals.redis_version() is None:
        raise FailedError(
            "redis-server is not installed; on Debian and Ubuntu type: apt install redis-server"
        )
    for key, value in said.items():
        setattr(contestant, key, value)


def _driven(
    name: str,
    rows: tuple[Row, ...],
    quick: dict[str, object],
    applies_to: Callable[[Contestant], bool] = lambda contestant: True,
) -> Measure:
    def take(run: Run) -> Mapping[str, Value]:
        return drive(run, name, **(quick if run.is_quick else {}))

    return Measure(name, rows, take, applies_to)


def _take_floor(run: Run) -> Mapping[str, Value]:
    run.folder.mkdir(parents=True)
    synchronous = run.contestant.environ["BENCHMARK_SYNCHRONOUS"]
    return machine.disk_floor(run.folder, synchronous, commits=100 if run.is_quick else 2000)


def _take_pick_up_floor(run: Run) -> Mapping[str, Value]:
    run.folder.mkdir(parents=True)
    synchronous = run.contestant.environ["BENCHMARK_SYNCHRONOUS"]
    dice = random.Random(f"{run.contestant.key}-{run.round}")
    quiet_s = [0.1] * 3 if run.is_quick else [dice.uniform(5, 8) for _ in range(12)]
    return {"ms": machine.pick_up_floor(run.folder, synchronous, quiet_s)}


def _take_pick_up(run: Run) -> Mapping[str, Value]:
    seed = f"{run.contestant.key}-{run.round}"  # not at the same moments, when all run at the same time
    if run.is_quick:
        return drive(run, "pick_up", samples=3, least_quiet_s=0.1, most_quiet_s=0.2, seed=seed)
    return drive(run, "pick_up", seed=seed)


QUEUE_MEASURES = [
    Measure(
        "floor",
        (
            Row("disk floor, bare SQLite, one-row commits/s", "per_s"),
            Row("disk floor, p50 us", "p50_us"),
            Row("disk floor, p99 us", "p99_us"),
        ),
        _take_floor,
        lambda contestant: contestant.is_postroom,
    ),
    _driven(
        "enqueue",
        (Row("enqueue, 1 thread, p50 us", "p50_us"), Row("enqueue, 1 thread, p99 us", "p99_us")),
        {"jobs": 50, "warm_up": 5},
    ),
    _driven("enqueue_8", (Row("enqueue, 8 threads, jobs/s", "per_s"),), {"jobs": 10}),
    _driven("bulk", (Row("enqueue in bulk, jobs/s", "per_s"),), {"jobs": 200}),
    _driven("drain", (Row("drain, 4 at once, jobs/s", "per_s"),), {"jobs": 200}),
    Measure(
        "pick_up_floor",
        (Row("idle pick-up floor, bare SQLite and a thread, p50 ms", "ms", 50),),
        _take_pick_up_floor,
        lambda contestant: contestant.is_postroom,
        together=True,
    ),
    Measure(
        "pick_up",
        tuple(
            Row(f"idle pick-up, {name} ms", "ms", p) for name, p in [("p50", 50), ("p99", 99), ("max", 100)]
        ),
        _take_pick_up,
        together=True,
    ),
    _driven(
        "round_trip",
        (Row("round trip, p50 ms", "p50_ms"),),
        {"jobs": 20},
        lambda contestant: contestant.can_wait,
    ),
    _driven(
        "eta",
        (Row("ETA, late by p50 ms (below 0: early)", "p50_ms"),),
        {"jobs": 5},
        lambda contestant: contestant.can_delay,
    ),
]

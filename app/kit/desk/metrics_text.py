"""What /metrics says, in Prometheus' text format. Imported at the first scrape: prometheus_client takes 1 MB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.kit.engine.wiring import huey
from app.kit.host.clock import clock
from app.kit.mail import by_hand, lanes
from app.kit.mail.lanes import Lane

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
HOUR_MINUTES = 60


def text() -> bytes:
    """Write down every metric as it is now."""
    registry = CollectorRegistry()  # Prometheus' global one would hold more than ours
    registry.register(DatabaseCollector())
    ProcessCollector(registry=registry)  # memory, processor time and open files, on Linux
    return generate_latest(registry)


class DatabaseCollector(Collector):
    """Asks the database at each scrape: so all processes are in it, and a restart begins nothing anew.

    All are gauges: rows that ended are forgotten after a while, so no count of them only grows.
    """

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the queue, then those of mail."""
        overview = huey.overview()
        yield from _of_queue(overview)
        yield from _of_pauses(overview["pauses"])
        yield from _of_last_hour(huey.stats(HOUR_MINUTES))
        yield from _of_mail(by_hand.counts(), lanes.find_all(), clock())


def _of_queue(overview: dict[str, Any]) -> Iterator[Metric]:
    yield _by_label("postroom_jobs", "Jobs in the table", "state", overview["counts"])
    yield GaugeMetricFamily(
        "postroom_oldest_ready_job_age_seconds",
        "For how long the job that waits longest has been ready; 0 when none is",
        value=overview["oldest_ready_age_s"] or 0.0,
    )
    doing = Counter(_doing(worker) for worker in overview["workers"])
    by_doing = {name: doing[name] for name in ("idle", "busy", "overdue")}
    yield _by_label("postroom_workers", "Threads that run jobs", "state", by_doing)
    states = Counter(instance["state"] for instance in overview["instances"])
    by_state = {state: states[state] for state in ("running", "stopping")}
    yield _by_label("postroom_instances", "Processes on this database", "state", by_state)
    clocks = sum(instance["holds_clock"] for instance in overview["instances"])
    yield GaugeMetricFamily(
        "postroom_clocks", "Processes that hold the clock; 0: nothing starts by time", value=clocks
    )


def _doing(worker: dict[str, Any]) -> str:
    if worker["overdue"]:
        return "overdue"
    return "busy" if worker["job"] else "idle"


def _of_pauses(pauses: list[dict[str, Any]]) -> Iterator[Metric]:
    paused = {pause["task"]: 1 for pause in pauses}
    whole = paused.pop("", 0)
    yield GaugeMetricFamily("postroom_queue_paused", "1 while the whole queue is paused", value=whole)
    yield _by_label("postroom_task_paused", "1 while a task is paused", "task", paused)


def _of_last_hour(stats: dict[str, Any]) -> Iterator[Metric]:
    for kind in ("arrival", "service"):
        what = {"arrival": "were enqueued", "service": "ended"}[kind]
        yield GaugeMetricFamily(
            f"postroom_{kind}_rate_jobs_per_second",
            f"Jobs that {what}, per second of the last minutes",
            value=stats[f"{kind}_per_s"],
        )
    seen = stats["tasks"]
    ended = GaugeMetricFamily(
        "postroom_task_jobs_last_hour",
        "What happened to jobs in the last 60 minutes",
        labels=["task", "event"],
    )
    for task in seen:
        for event in ("enqueued", "done", "failed", "cancelled"):
            ended.add_metric([task["task"], event], task[event])
    yield ended
    yield _seconds("postroom_task_run_median_seconds", "Median of a task's last 20 runs", seen, "run_ms_p50")
    yield _seconds("postroom_task_run_max_seconds", "Longest run of the last 60 minutes", seen, "run_ms_max")


def _of_mail(counts: dict[str, int], known: Iterable[Lane], now: float) -> Iterator[Metric]:
    yield _by_label("postroom_emails", "Mails in the ledger", "state", counts)
    left_s = {lane.name: lane.left_s(now) for lane in known}
    yield _by_label("postroom_mail_lane_pause_seconds", "How much longer a mail lane pauses", "lane", left_s)


def _by_label(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family


def _seconds(name: str, meaning: str, seen: Iterable[dict[str, Any]], key: str) -> Metric:
    known = {task["task"]: task[key] / 1000 for task in seen if task[key] is not None}
    return _by_label(name, meaning, "task", known)

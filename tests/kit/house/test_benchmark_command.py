"""`python3 main.py benchmark`: its figures, its order, its honesty; and that it works, in the small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.kit.errors import InvalidInputError
from tests.kit.benchmarks import command, driver, machine, marks, rivals
from tests.kit.benchmarks.measures import Contestant, FailedError, Measure, Run, contestants
from tests.kit.benchmarks.table import (
    Row,
    Value,
    cell,
    figure,
    markdown,
    percentile,
)
from tests.kit.benchmarks.workers import Workers
from tests.kit.small_project import PROJECT_DIR

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: reads /proc")


@pytest.fixture
def marks_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of marks of this test."""
    path = tmp_path / "marks"
    monkeypatch.setenv("BENCHMARK_MARKS", str(path))
    return path


# Marks


def test_marks_of_many_threads_are_read_as_they_were_written(marks_path: Path) -> None:
    threads = [threading.Thread(target=marks.mark, args=(n,)) for n in range(-1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = marks.read_marks(marks_path)
    assert sorted(n for n, _ in found) == list(range(-1, 20))
    assert all(at_ns > 0 for _, at_ns in found)


def test_a_mark_returns_its_number_and_half_a_mark_is_no_mark(marks_path: Path) -> None:
    assert marks.read_marks(marks_path) == []
    assert marks.mark(7) == 7
    with marks_path.open("ab") as file:
        file.write(b"half")
    assert [n for n, _ in marks.read_marks(marks_path)] == [7]


# The table


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([4.0], 50) == percentile([4.0], 99) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123, "0.12"), (9.87, "9.87"), (12.34, "12.3"), (123.4, "123"), (45678.9, "45,679")],
)
def test_a_figure_has_no_more_digits_than_mean_something(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_cell_shows_the_median_of_the_rounds_and_their_spread() -> None:
    assert cell([], 50) == "-"
    assert cell([5.0], 50) == "5.00"
    assert cell([900.0, 100.0, 200.0], 50) == "200 (100 to 900)"


def test_a_cell_of_samples_shows_the_percentile_of_all_of_them() -> None:
    rounds: list[Value] = [[1.0, 1.0, 1.0], [2.0, 3.0, 9.0]]
    assert cell(rounds, 50) == "1.00 (1.00 to 3.00)"
    assert cell(rounds, 100) == "9.00 (1.00 to 9.00)"
    assert cell([[4.0, 6.0]], 100) == "6.00"


def test_the_table_is_markdown_whose_columns_are_aligned() -> None:
    assert markdown(["", "One"], [["jobs/s", "1,234"], ["p50", "-"]]).splitlines() == [
        "|        |   One |",
        "|--------|------:|",
        "| jobs/s | 1,234 |",
        "| p50    |     - |",
    ]


# The order, and what goes wrong


def test_each_contestant_is_first_once_in_as_many_rounds_as_there_are() -> None:
    assert [command.rotated(["a", "b", "c"], by) for by in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert command.rotated([], 1) == []


def benchmark(folder: Path, measures: list[Measure], *keys: str) -> command.Benchmark:
    """Return a benchmark in which contestants of these names take part."""
    chosen = [Contestant(key, key, name=key.upper()) for key in keys]
    made = command.Benchmark(folder, measures, chosen, is_quick=True)
    made.taking_part += chosen
    return made


def test_the_rounds_are_interleaved_and_each_begins_with_another(tmp_path: Path) -> None:
    seen = []

    def take(run: Run) -> Mapping[str, Value]:
        seen.append(f"{run.round}{run.contestant.key}")
        return {"x": float(run.round)}

    made = benchmark(tmp_path, [Measure("m", (Row("title", "x"),), take)], "a", "b")
    made.measure(rounds=3)
    assert seen == ["1a", "1b", "2b", "2a", "3a", "3b"]


def test_contestants_of_a_measure_that_waits_are_measured_at_the_same_time(tmp_path: Path) -> None:
    all_there = threading.Barrier(3)

    def take(run: Run) -> Mapping[str, Value]:
        all_there.wait(20)
        return {"x": 1.0}

    made = benchmark(tmp_path, [Measure("m", (Row("title", "x"),), take, together=True)], "a", "b", "c")
    made.measure(rounds=1)
    assert len(made.found) == 3


@needs_linux
def test_what_failed_is_a_dash_and_a_note_and_ends_nothing(tmp_path: Path) -> None:
    def take(run: Run) -> Mapping[str, Value]:
        if run.contestant.key == "bad":
            raise FailedError("2 jobs were lost")
        return {"x": 5.0}

    made = benchmark(tmp_path, [Measure("m", (Row("jobs/s", "x"),), take)], "bad", "good")
    made.measure(rounds=1)
    lines = made.report(rounds=1).splitlines()
    assert [row.strip() for row in lines if row.startswith("| jobs/s")] == ["| jobs/s |   - | 5.00 |"]
    assert "- round 1, BAD: m failed: 2 jobs were lost" in lines


@needs_linux
def test_what_was_found_before_ctrl_c_is_reported(tmp_path: Path) -> None:
    def take(run: Run) -> Mapping[str, Value]:
        if run.round == 2:
            raise KeyboardInterrupt
        return {"x": 5.0}

    made = benchmark(tmp_path, [Measure("m", (Row("jobs/s", "x"),), take)], "a")
    made.measure(rounds=3)
    lines = made.report(rounds=3).splitlines()
    assert [row.strip() for row in lines if row.startswith("| jobs/s")] == ["| jobs/s | 5.00 |"]
    assert made.failures == ["It was stopped by hand: some figures are of fewer rounds, or missing."]


@needs_linux
def test_who_cannot_take_part_is_skipped_by_name_with_the_reason(tmp_path: Path) -> None:
    made = command.Benchmark(tmp_path, [], [Contestant("nobody", "postroom_of_nobody")], is_quick=True)
    made.introduce()
    (skipped,) = made.skipped
    assert skipped.startswith("nobody is skipped: ")
    assert len(skipped) > len("nobody is skipped: ")
    assert f"- {skipped}" in made.report(rounds=1).splitlines()


# Honesty


def test_a_job_that_was_dropped_at_the_enqueue_is_an_error(marks_path: Path) -> None:
    forgetful = SimpleNamespace(waiting=lambda: 4)
    with pytest.raises(AssertionError, match="5 jobs were enqueued, 4 wait"):
        driver.run_waiting(forgetful, 5)


@pytest.mark.parametrize("ran", [[0, 1, 1], [0, 1, 3], [0, 1, 2, 2]])
def test_a_job_that_ran_twice_or_not_at_all_is_an_error(marks_path: Path, ran: list[int]) -> None:
    for n in ran:
        marks.mark(n)
    with pytest.raises(AssertionError, match=f"of 3 jobs {len(set(ran))} ran, in {len(ran)} runs"):
        driver.check_ran(SimpleNamespace(), Workers([]), 3)


def test_a_worker_that_ends_is_an_error_with_its_last_words(marks_path: Path) -> None:
    workers = Workers([[sys.executable, "-c", "print('no such queue')"]])
    with pytest.raises(AssertionError, match=r"a worker ended after 0 of 1 runs; .*'no such queue'"):
        workers.wait_for_marks(1)
    workers.stop()


@needs_linux
def test_nothing_that_was_started_for_a_folder_survives(tmp_path: Path) -> None:
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", nested],
            env=os.environ | {"BENCHMARK_FOLDER": str(folder / "data")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        for folder in (tmp_path / "mine", tmp_path / "mine too")
    ]
    mine, other = processes
    while len(machine.process_tree(mine.pid)) < 2 or len(machine.process_tree(other.pid)) < 2:
        assert mine.poll() is None
    assert machine.pss_mb(machine.process_tree(mine.pid)) > machine.pss_mb([mine.pid]) > 1
    machine.kill_all_of(tmp_path / "mine")
    mine.communicate(timeout=20)  # it returns when the last of them is gone, for they share the pipe
    assert mine.returncode == -9
    assert other.poll() is None
    other.communicate(b"\n", timeout=20)
    assert other.returncode == 0


def test_the_floors_time_each_commit_and_each_wake(tmp_path: Path) -> None:
    for name in ("disk", "pick-up"):
        (tmp_path / name).mkdir()
    disk = machine.disk_floor(tmp_path / "disk", "NORMAL", commits=50)
    assert 0 < disk["p50_us"] <= disk["p99_us"]
    waits = machine.pick_up_floor(tmp_path / "pick-up", "FULL", [0.0, 0.001, 0.0])
    assert len(waits) == 3
    assert min(waits) > 0


# The command


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["drian"], "'drian' is none of floor, enqueue,"),
        (["--only", "postroom,sidekiq"], "'sidekiq' is none of postroom, postroom_normal,"),
        (["--rounds", "0"], "'0' is not a number of rounds, expected 1 or more"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_was_expected(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command.run(arguments)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: python3 main.py benchmark ")
    assert complaint in said


@needs_linux
def test_a_table_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no folder/table\.md cannot be written: No such file"):
        command.run(["--out", str(tmp_path / "no folder" / "table.md")])


def test_elsewhere_it_says_that_it_needs_linux(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert command.run([]) == 1
    assert capsys.readouterr().err == "The benchmark needs Linux: it reads /proc.\n"


@pytest.mark.slow
@needs_linux
def test_it_measures_the_queue_and_prints_the_table(tmp_path: Path) -> None:
    measures = ["enqueue", "drain", "round_trip", "eta"]
    chosen = ["--only", "postroom,postroom_normal", "--rounds", "2", "--quick"]
    process = subprocess.run(
        [sys.executable, str(PROJECT_DIR / "main.py"), "benchmark", *measures, *chosen, "--out", "table.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "table.md").read_text("utf-8") == process.stdout
    lines = process.stdout.splitlines()
    assert re.search(r"SQLite [\d.]+, redis-server [\w.]+, .*huey [\d.]+", process.stdout)
    rows = {cells[0]: cells[1:] for line in lines if (cells := re.findall(r"[^|]+(?=\|)", line))}
    rows = {title.strip(): [text.strip() for text in cells] for title, cells in rows.items()}
    assert rows[""] == ["Postroom FULL", "Postroom NORMAL"]
    assert len(rows) == 2 + 5, "titles, the rule, and five rows"
    for title in ("enqueue, 1 thread, p99 us", "drain, 4 at once, jobs/s", "round trip, p50 ms"):
        assert all(re.fullmatch(r"[\d,.]+ \([\d,.]+ to [\d,.]+\)", text) for text in rows[title]), title
    assert "- This was a quick run: its figures mean nothing." in lines
    assert "round 2, Postroom NORMAL: drain, 4 at once, jobs/s " in process.stderr


@pytest.mark.slow
@needs_linux
@pytest.mark.skipif(
    rivals.redis_version() is None, reason="needs redis-server; on Debian: apt install redis-server"
)
def test_every_rival_takes_part(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, str(PROJECT_DIR / "main.py"), "benchmark", "drain", "--quick", "--rounds", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "skipped" not in process.stdout
    (row,) = [line for line in process.stdout.splitlines() if line.startswith("| drain, 4 at once")]
    figures = [float(text.replace(",", "")) for text in row.strip("|").split("|")[1:]]
    assert len(figures) == len(contestants())
    assert min(figures) > 0

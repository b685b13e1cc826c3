"""/up, /ready and the queue in numbers."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace

import pytest

import tasks
from app.kit.errors import DatabaseBusyError
from app.settings import Settings
from tasks.example import count_words


@pytest.fixture
def healthy(app, monkeypatch):
    monkeypatch.setattr(tasks.huey, "health", lambda: [])


def test_up_answers_without_touching_anything(app, client, monkeypatch):
    monkeypatch.delitem(app.extensions, "database")
    response = client.get("/up")
    assert (response.status_code, response.text) == (200, "ok\n")


def test_ready_says_so(client, healthy):
    response = client.get("/ready")
    assert (response.status_code, response.json) == (200, {"ready": True, "reasons": []})


def test_not_ready_gives_the_reasons_of_the_queue(client, monkeypatch):
    monkeypatch.setattr(tasks.huey, "health", lambda: ["No consumer is running."])
    response = client.get("/ready")
    assert (response.status_code, response.json["reasons"]) == (503, ["No consumer is running."])


@pytest.mark.parametrize(
    "error", [DatabaseBusyError("held for 10 s"), sqlite3.OperationalError("database or disk is full")]
)
def test_not_ready_when_the_database_does_not_write(app, client, healthy, monkeypatch, error):
    def broken(_work, durable=True):
        raise error

    monkeypatch.setattr(app.extensions["database"], "write", broken)
    response = client.get("/ready")
    assert (response.status_code, response.json["ready"]) == (503, False)
    assert str(error) in response.json["reasons"][0]


def test_reasons_name_no_file_of_this_machine_to_strangers(app, client, operator, monkeypatch):
    path = app.extensions["settings"].database_path
    monkeypatch.setattr(tasks.huey, "health", lambda: [f"{path} is held by somebody else."])
    assert operator.get("/ready").json["reasons"] == [f"{path} is held by somebody else."]
    assert client.get("/ready").json["reasons"] == ["postroom.db is held by somebody else."]


def test_the_queue_is_told_in_numbers(client, operator):
    tasks.huey.pause("tasks.emails.deliver_email", reason="535 no such user cleo@mail.example")
    queue = client.get("/api/queue").json
    assert set(queue) == {"counts", "oldest_ready_age_s"}, (
        "strangers see whose job runs, or what a server said"
    )
    assert set(operator.get("/api/queue").json) == set(queue) | {"workers", "instances", "pauses"}
    assert set(queue["counts"]) == {"scheduled", "ready", "running", "done", "failed", "cancelled"}


def test_moments_of_the_queue_are_written_with_z(operator, monkeypatch):
    found = {"instances": [{"started_at": 1_900_000_000.0, "stopped_at": None, "threads": 4}]}
    monkeypatch.setattr(tasks.huey, "overview", lambda: found)
    assert operator.get("/api/queue").json["instances"] == [
        {"started_at": "2030-03-17T17:46:40.000Z", "stopped_at": None, "threads": 4}
    ]


def test_no_answer_tells_the_operators_token(app, client):
    settings: Settings = app.extensions["settings"]
    for address in ("/", "/ready", "/api/queue", "/api/nowhere"):
        assert settings.admin_token not in client.get(address).text


# Where another start than the kit's own serves the pages


def test_a_site_without_a_consumer_says_so_in_the_log_and_on_a_job_that_waits(client, app, caplog):
    job = count_words("a job").id
    assert client.get("/up").status_code == 200
    assert caplog.messages == []
    for path in (f"/jobs/{job}", f"/jobs/{job}/live"):
        assert "No consumer is running" in client.get(path).text
    assert [message.partition(":")[0] for message in caplog.messages] == ["No consumer is running"]
    app.extensions["consumer"].start()
    tasks.huey.cancel(job)
    assert "No consumer is running" not in client.get(f"/jobs/{job}").text
    app.extensions["consumer"].stop()


def test_a_process_that_is_gone_is_no_consumer(client, app):
    tasks.huey.database.write(
        lambda connection: connection.execute(
            "INSERT INTO postroom_instances VALUES ('gone', 1, 4, 'running', 0, 0)"
        )
    )
    assert "No consumer is running" in client.get("/ready").json["reasons"][0]


def test_a_site_that_runs_its_jobs_says_nothing(client, app, caplog):
    app.extensions["consumer"].start()
    client.get(f"/jobs/{count_words('a job').id}")
    app.extensions["consumer"].stop()
    assert [message for message in caplog.messages if "consumer" in message] == []


def test_every_look_really_writes(app, client, healthy):
    database = app.extensions["database"]
    wal = database.path.with_name(f"{database.path.name}-wal")
    database.open()
    for _ in range(3):
        before = wal.stat().st_size
        client.get("/ready")
        assert wal.stat().st_size > before


@pytest.mark.parametrize(("left_bytes", "status"), [(262_143, 503), (262_144, 200)])
def test_not_ready_when_the_disk_has_no_room_for_a_job(app, client, healthy, monkeypatch, left_bytes, status):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=left_bytes))
    response = client.get("/ready")
    assert response.status_code == status
    assert ("Make room" in str(response.json["reasons"])) == (status == 503)


def test_a_full_disk_is_told_with_what_to_do(app, client, caplog):
    connection = app.extensions["database"].writer.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    app.add_url_rule("/api/grow", "status.grow", lambda: {"id": count_words("a word " * 200).id})
    responses = [client.get("/api/grow") for _ in range(200)]
    refused = next(response for response in responses if response.status_code != 200)
    assert (refused.status_code, refused.headers.get("Retry-After")) == (503, "5"), refused.text
    assert "make room" in refused.json["error"]["message"]
    assert str(app.extensions["settings"].data_dir) not in refused.text
    assert "disk is full" in caplog.text


def test_ready_warns_of_a_pause_of_the_whole_queue_and_of_a_log_that_cannot_shrink(
    app, client, healthy, monkeypatch
):
    tasks.huey.pause(reason="a secret")
    monkeypatch.setattr(app.extensions["database"], "stuck_wal_bytes", lambda: 20 * 2**20)
    answer = client.get("/ready").json
    assert answer["ready"] is True
    assert ["paused" in answer["warnings"][0], "20 MiB" in answer["warnings"][1]] == [True, True]
    assert "a secret" not in str(answer)
    tasks.huey.resume()

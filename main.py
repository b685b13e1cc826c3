"""The way in: `python3 main.py [command]` (see USAGE), and `main.app` for `gunicorn main:app`.

It parses on any Python 3 (no f-strings), so that an old one can say what is needed.
"""

import os
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "Postroom needs Python 3.11 or newer, and this is Python %d.%d. "
        "Install a newer one and start with it, for example: python3.12 main.py" % sys.version_info[:2]
    )

from typing import TYPE_CHECKING

from app.kit.errors import PostroomError
from app.kit.host import install

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.kit.engine.consumer.consumer import EmbeddedConsumer
    from app.settings import Settings

PROJECT_DIR = os.path.dirname(os.path.abspath(__file__))
USAGE = """usage: python3 main.py [command]

  serve                             the site and its jobs (the default)
  worker                            one more process that runs jobs and serves no pages
  jobs list|show|retry|cancel|resume
                                    look at jobs, run failed ones again; jobs --help tells more
  backup FILE                       copy the database, while the site runs, into a new file
  restore FILE                      bring a backup back, while nothing runs; what waited in it is held
  doctor                            which promises hold on this machine, and what to do about the others
  test [--all] [pytest arguments]   the fast tests; with --all the slow ones too
  benchmark [measure ...]           this kit beside others, measured on this machine; benchmark --help tells more"""

COMMANDS = ("serve", "worker", "jobs", "backup", "restore", "doctor", "test", "benchmark")


def __getattr__(name: str) -> object:
    """Build `main.app` when it is first asked for."""
    if name != "app":
        raise AttributeError("module 'main' has no attribute %r" % name)
    from app import create_app

    globals()["app"] = create_app()
    return globals()["app"]


def serve() -> int:
    """Serve the site and run its jobs, in this one process, until told to stop."""
    from app.settings import Settings

    settings = Settings.read()  # gunicorn reads them in its worker; a wrong one is to stop us here
    if sys.platform == "win32":
        return _serve_with_waitress(settings)
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = ["gunicorn", "--config", os.path.join(PROJECT_DIR, "gunicorn.conf.py"), "main:app"]
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").run()
    return 0


def _serve_with_waitress(settings: "Settings") -> int:
    """Serve where gunicorn does not run: on Windows."""
    from dataclasses import replace

    import waitress

    from app import create_app
    from app.kit.doctor import doctor
    from app.kit.host import listening, logs
    from app.kit.host.banner import banner
    from app.kit.host.secret_key import secret_key

    logs.configure(settings.log_level, settings.secrets)
    listening.wait_until_free(settings.host, settings.port)
    app = create_app(replace(settings, secret_key=secret_key(settings)))
    consumer = app.extensions["consumer"]
    _start(consumer)
    is_chosen = bool(os.environ.get("ADMIN_TOKEN", "").strip())
    print(banner(settings, settings.public_url, is_chosen), file=sys.stderr, flush=True)
    doctor.warn(settings)
    try:
        waitress.serve(app, host=settings.host, port=settings.port, threads=settings.web_threads)
    finally:
        consumer.stop_for_good()
    return 0


def _start(
    consumer: "EmbeddedConsumer", always: bool = False, is_enough: "Callable[[], bool]" = bool
) -> bool:
    """Start running jobs, trying again while another program holds the database; False when that is enough."""
    from app.kit.errors import DatabaseBusyError

    while not is_enough():
        try:
            consumer.start(always=always)
            return True
        except DatabaseBusyError as error:
            print("Postroom cannot start yet: %s" % error, file=sys.stderr, flush=True)
    return False


def worker() -> int:
    """Run jobs beside the serving process until SIGTERM or Ctrl-C."""
    import queue
    import signal

    from app import create_app
    from app.kit.doctor import doctor
    from app.kit.host import logs
    from app.settings import Settings

    # Its put() is safe in a signal handler, an Event's set() is not.
    heard = queue.SimpleQueue()  # type: queue.SimpleQueue[str]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: heard.put("stop"))
    settings = Settings.read()
    logs.configure(settings.log_level, settings.secrets)
    consumer = create_app(settings).extensions["consumer"]
    consumer.recycle = lambda: heard.put("start anew")  # every thread hangs, and no thread can be stopped
    if not _start(consumer, True, lambda: not heard.empty()):
        return 0
    print("Postroom worker: runs the jobs of %s" % settings.data_dir, file=sys.stderr, flush=True)
    for check in doctor.check_spelling(os.environ):  # the site says all the rest
        print(check, file=sys.stderr, flush=True)
    word = None
    while word is None:
        try:
            word = heard.get(
                timeout=1
            )  # a signal may reach another thread, and then ends no wait of this one
        except queue.Empty:
            continue
    if word == "start anew":
        consumer.stop()
        os.execv(sys.executable, [sys.executable, os.path.join(PROJECT_DIR, "main.py"), "worker"])
    consumer.stop_for_good()
    return 0


def jobs(arguments: "list[str]") -> int:
    """Look at jobs, run failed ones again, cancel what waits."""
    import tasks
    from app import create_app
    from app.kit.engine.operate import commands

    create_app()
    return commands.run(tasks.huey, arguments)


def backup(arguments: "list[str]") -> int:
    """Copy the database into a new file."""
    from pathlib import Path

    from app import create_app
    from app.kit.errors import InvalidInputError

    if len(arguments) != 1:
        raise InvalidInputError("Name the file to write, for example: python3 main.py backup monday.db")
    create_app().extensions["database"].backup(Path(arguments[0]))
    return 0


def restore(arguments: "list[str]") -> int:
    """Put a copy of a backup in the database's place; the old file stays beside it."""
    from pathlib import Path

    import tasks
    from app import create_app
    from app.kit.engine.consumer import instances
    from app.kit.errors import InvalidInputError

    if len(arguments) != 1:
        raise InvalidInputError("Name the file to bring back, for example: python3 main.py restore monday.db")
    database = create_app().extensions["database"]
    source = Path(arguments[0]).absolute()
    aside = database.restore(source, lambda: instances.living(database.path.parent))
    database.open()
    waiting = sum(tasks.huey.overview()["counts"][state] for state in ("scheduled", "ready", "running"))
    old = " The file from before is now %s." % aside if aside else ""
    print("%s is in place of %s.%s" % (source.name, database.path, old))
    print(
        "%d jobs waited when it was made. They may have been done, and their mails sent, since: all are held.\n"
        "Start the site, look them through (/desk, jobs list ready), cancel what must not run again, and then: "
        "python3 main.py jobs resume" % waiting
    )
    return 0


def doctor() -> int:
    """Say which promises hold here; the exit status is 1 when something is wrong."""
    from app.kit.doctor import doctor
    from app.settings import Settings

    return doctor.report(Settings.read())


def test(arguments: "list[str]") -> int:
    """Run the fast tests, or with --all every test; CI then takes a skipped test for a failed one."""
    import pytest

    if "--all" not in arguments:
        return int(pytest.main(["-m", "not slow"] + arguments))
    strict = ["-p", "tests.kit.ci_plugin"] if os.environ.get("CI") else []
    return int(pytest.main(strict + [argument for argument in arguments if argument != "--all"]))


def benchmark(arguments: "list[str]") -> int:
    """Measure this kit and others on this machine, and print the table."""
    from tests.kit.benchmarks import command

    return command.run(arguments)


def _groups(arguments: "list[str]") -> "tuple[str, ...]":
    """Name the groups of packages that the tests need; only --all opens a browser."""
    return ("dev", "browser") if "--all" in arguments else ("dev",)


def main(arguments: "list[str]") -> int:
    """Run one command and return its exit status."""
    command, rest = (arguments or ["serve"])[0], arguments[1:]
    if command in ("help", "--help", "-h"):
        print(USAGE)
        return 0
    if command not in COMMANDS or (rest and command in ("serve", "worker", "doctor")):
        unknown = (
            "%s takes no more words" % command if command in COMMANDS else "There is no command %s" % command
        )
        print("Postroom: %s.\n%s" % (unknown, USAGE), file=sys.stderr)
        return 2
    try:
        install.ensure(_groups(rest) if command in ("test", "benchmark") else ())
        if command in ("backup", "restore", "benchmark"):  # their files are named from where the user stands
            return {"backup": backup, "restore": restore, "benchmark": benchmark}[command](rest)
        os.chdir(PROJECT_DIR)
        if command in ("test", "jobs"):
            return test(rest) if command == "test" else jobs(rest)
        if command == "doctor":
            return doctor()
        return worker() if command == "worker" else serve()
    except PostroomError as error:
        print("Postroom: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

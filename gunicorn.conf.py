"""gunicorn's settings and hooks: one worker process, threads, and the consumer inside it."""

import ctypes
import functools
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ

from gunicorn.arbiter import Arbiter

PROJECT_DIR = Path(__file__).resolve().parent
sys.path.insert(0, str(PROJECT_DIR))

from app.kit.errors import PostroomError  # noqa: E402
from app.kit.host import listening, logs  # noqa: E402
from app.kit.host.banner import address_to_open, banner  # noqa: E402
from app.kit.host.connections_clients import most_connections  # noqa: E402
from app.kit.host.connections_worker import QUIET_LOOK_S, PatientWorker  # noqa: E402
from app.kit.host.secret_key import secret_key  # noqa: E402
from app.kit.host.sources import Sources  # noqa: E402
from app.kit.host.watch import HangWatch, Lifeline, set_patience  # noqa: E402
from app.settings import Settings  # noqa: E402

environ = dict(os.environ)

try:
    settings = Settings.read()
    # Found or made once, so that every worker process, now and after a reload, has the same.
    os.environ["SECRET_KEY"] = secret_key(settings)
except PostroomError as error:
    sys.exit(str(error))

token_is_chosen = bool(os.environ.get("ADMIN_TOKEN", "").strip())
os.environ["ADMIN_TOKEN"] = settings.admin_token

# glibc sets memory apart for every thread, of which Python's lock lets one allocate at a time: 2 MB for nothing.
# Elsewhere there is no such function. Source: mallopt(3), M_ARENA_MAX is -8.
with suppress(AttributeError, OSError):
    ctypes.CDLL(None).mallopt(-8, 1)

RELOAD_LOOK_S = 2.0
STOP_WITHIN_S = 9
"""Longer than the consumer's 8 s, shorter than the 10 s after which hosts kill."""

log = logging.getLogger("postroom")


class ConsumerWorker(PatientWorker):
    """A worker whose consumer hears the signal first."""

    most_body_bytes = settings.max_request_bytes

    def handle_exit(self, sig, frame):
        """SIGTERM: take no more jobs, let go of long polls, answer what is open, leave."""
        consumer = _consumer(self)
        if consumer is not None:
            consumer.stop_soon()
        set_patience(self, STOP_WITHIN_S)
        super().handle_exit(sig, frame)

    def handle_quit(self, sig, frame):
        """SIGINT, SIGQUIT (Ctrl-C): the same orderly end."""
        self.handle_exit(sig, frame)


chdir = str(PROJECT_DIR)
bind = settings.bind
workers = 1
threads = settings.web_threads
worker_class = ConsumerWorker
worker_connections = most_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
sendfile = False  # it writes past what waits to be sent
# A body that holds the interpreter for long is no hang, and a process that was stopped for a while is none: see
# HangWatch, which judges in gunicorn's place.
timeout = 0
graceful_timeout = STOP_WITHIN_S
loglevel = "debug" if settings.log_level == "DEBUG" else "warning"
control_socket_disable = True
forwarder_headers = ""  # by default a client on this machine may say with SCRIPT_NAME below which path we are
# For who switches it on with --access-logfile: no query and no Referer, for those may hold a token.
access_log_format = '%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(L)s s'


def on_starting(server):
    """Say why the port cannot be had, in one line; gunicorn would take ten."""
    if server.master_pid or os.environ.get("LISTEN_FDS") or server.cfg.reuse_port:
        return  # it is given the port
    try:
        for address in server.address:
            if isinstance(address, tuple):
                listening.wait_until_free(*address)
    except PostroomError as error:
        sys.exit(f"Postroom: {error}")


def when_ready(server):
    """Say where everything is, once the port is open."""
    port = server.LISTENERS[0].sock.getsockname()[1]
    print(banner(settings, address_to_open(settings, port), token_is_chosen), file=sys.stderr, flush=True)
    server.lifeline = Lifeline()  # one for all reloads, each of which reads this file again
    server.wait_for_signals = functools.partial(_wait_for_signals, server, HangWatch())


def pre_fork(server, worker):
    """Keep the collector off what both processes share: a page that it writes to is there twice."""
    gc.collect()
    gc.freeze()


def post_fork(server, worker):
    """Begin the worker with a fresh import of the project, so that a reload sees every edit."""
    server.lifeline.hold()
    worker.lifeline = server.lifeline
    logs.configure(settings.log_level, settings.secrets | {os.environ["SECRET_KEY"]})
    if not server.cfg.preload_app:
        for name in [name for name in sys.modules if name.split(".")[0] in ("app", "tasks", "main")]:
            del sys.modules[name]


def post_worker_init(worker):
    """Start the consumer, after the fork and never in the reloader's parent."""
    from app.kit.doctor import doctor  # these of the fresh import
    from app.kit.errors import DatabaseBusyError, PostroomError

    # A job's first steps wait less for a page's code to let go of the interpreter (Python's default: 5 ms).
    sys.setswitchinterval(0.001)
    consumer = _consumer(worker)
    consumer.recycle = lambda: os.kill(os.getpid(), signal.SIGTERM)  # the arbiter starts another
    _make_new_file(worker.wsgi.extensions["database"])
    try:
        consumer.start()
    except DatabaseBusyError as error:
        log.error("The site cannot start yet: %s", error)
        sys.exit(1)  # the arbiter starts another worker
    except PostroomError as error:
        log.error("The site cannot start: %s", error)
        sys.exit(Arbiter.WORKER_BOOT_ERROR)  # the arbiter gives up
    set_patience(worker, consumer.longest_timeout_s())
    worker.poller.register(worker.lifeline, EVENT_READ, lambda _: _end_after_parent(worker))
    os.register_at_fork(after_in_child=lambda: _let_go(worker))
    if worker.age == 1:  # the first, not one after a reload
        doctor.warn(settings, environ)
    if not settings.production:
        threading.Thread(target=_reload_on_edit, args=(worker,), name="Reloader", daemon=True).start()


def worker_exit(server, worker):
    """Give running bodies what is left of their 8 s."""
    consumer = _consumer(worker)
    if consumer is not None:
        consumer.stop_for_good()


def _wait_for_signals(server, hang_watch, timeout):
    signals = Arbiter.wait_for_signals(server, QUIET_LOOK_S)
    hang_watch.look(server.WORKERS)
    return signals


def _end_after_parent(worker):
    """Free the port at once, for the next start, and come to an orderly end."""
    log.warning("The parent process is gone: this one frees the port and ends")
    worker.poller.unregister(worker.lifeline)
    worker.set_accept_enabled(False)
    _close_listeners(worker)
    worker.handle_exit(signal.SIGTERM, None)


def _let_go(worker):
    """In a fork by a body: let go of the port and the clients, which it would hold for as long as it lives."""
    _close_listeners(worker)  # but not out of the poller: that one is the parent's too
    worker.clients.let_go()


def _close_listeners(worker):
    for listener in worker.sockets:
        listener.close()


def _make_new_file(database):
    """Make the tables in a child, so that what only migrations need, 3 MB, goes away with it."""
    if os.path.exists(database.path):
        return
    child = os.fork()  # no thread has been started yet
    if child:
        os.waitpid(child, 0)
        return
    try:
        logging.disable()  # what goes wrong here goes wrong in the worker too, and it says so
        database.open()
        database.close()
    finally:
        os._exit(0)


def _consumer(worker):
    app = getattr(worker, "wsgi", None)
    return None if app is None else app.extensions["consumer"]


def _reload_on_edit(worker):
    sources = Sources(PROJECT_DIR)
    before = sources.edited_at_ns()
    stopped = threading.Event()
    while not stopped.wait(RELOAD_LOOK_S) and worker.alive:
        # Of several workers one does it: the one that runs the jobs.
        if (after := sources.edited_at_ns()) != before and _consumer(worker).is_consuming():
            before = after
            if _can_be_imported():
                os.kill(os.getppid(), signal.SIGHUP)


def _can_be_imported():
    """Try an edit in a process of its own: a worker that cannot start would end the whole site."""
    command = [sys.executable, "-c", "import main; main.app"]
    tried = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    if tried.returncode:
        log.error("The site goes on as it was, for the edit does not work:\n%s", tried.stderr)
    return tried.returncode == 0

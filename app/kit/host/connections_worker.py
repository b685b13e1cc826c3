"""gunicorn's threaded worker, of which no client costs a thread but while its request is answered."""

from __future__ import annotations

import functools
from concurrent.futures import Future
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from app.kit.host.connections import Connection, read_away
from app.kit.host.connections_clients import LOOK_S, Clients

QUIET_LOOK_S = 3.0
"""How often gunicorn looks, while nothing happens, whether its other process lives; its own 1 s costs an idle site
as much as all the rest. The end of a process is a signal, and wakes it at once."""


class PatientWorker(ThreadWorker):
    """Leaves to Clients whoever sends, reads or thinks; gunicorn's threads get whole requests."""

    most_body_bytes: int

    @functools.cached_property
    def clients(self) -> Clients:
        """Those that no thread serves."""

        def wrap(connection: Connection, client: Any, server: Any) -> TConn:
            conn = TConn(self.cfg, connection, client, server)
            conn.data_ready = True
            return conn

        return Clients(self, wrap, self.most_body_bytes, lambda: self.wsgi.extensions["seats_for_waiting"])

    def accept(self, listener: Any) -> None:
        """Let a client in; it gets a thread once its request is there."""
        cfg = self.cfg
        if cfg.is_ssl or (cfg.protocol, cfg.proxy_protocol, cfg.http2_cleartext) != ("http", "off", "off"):
            super().accept(listener)  # gunicorn reads these itself
        else:
            self.clients.accept(listener)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answer a request, and read what the answer made needless of it: the next one begins after that."""
        if not isinstance(conn.sock, Connection):
            return bool(super().handle_request(req, conn))
        req._expected_100_continue = False  # it has been told to go on, for the body is there
        if conn.sock.is_cut_short:
            req.force_close()
        keep_alive = super().handle_request(req, conn)
        return read_away(req.body) and bool(keep_alive)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Take a connection back from its thread."""
        if not isinstance(conn.sock, Connection):
            super().finish_request(conn, fs)
            return
        # Were anything left, gunicorn and we would not agree where this request ends.
        may_go_on = not fs.exception() and fs.result() and not conn.parser.unreader.take_buffered()
        self.clients.finish(conn.sock, may_go_on)

    def murder_pending(self) -> None:
        """End what has taken too long."""
        super().murder_pending()
        self.clients.look_at_the_time()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Sleep longer while nobody is connected; a client and a signal wake it at once."""
        if self.alive:
            timeout = timeout if self.nr_conns else QUIET_LOOK_S
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, LOOK_S))

"""The port the site listens on: whether it can be had, and if not, why not and who has it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from app.kit.errors import CannotListenError

LOOK_S = 0.1
LISTENS = "0A"
"""The state of a listening socket. Source: proc_pid_net(5), include/net/tcp_states.h."""


def wait_until_free(host: str, port: int, within_s: float = 5.0) -> None:
    """Return once the port can be had; a site that is just ending lets go of it soon.

    Raises: CannotListenError.
    """
    give_up_at = time.monotonic() + within_s
    while True:
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                if sys.platform != "win32":  # there it would share the port with whoever has it
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > give_up_at:
                raise CannotListenError(_why(host, port, error)) from None
        time.sleep(LOOK_S)


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        return (
            f"PORT {port} is taken{f' by {holder}' if holder else ''}. "
            f"End that program, or set PORT to another number, for example {port + 1 if port < 65535 else 5000}."
        )
    if error.errno == errno.EACCES:
        return f"PORT {port} is not for every user (below 1024 it is root's). Set PORT to 5000, for example."
    return (
        f"HOST {host!r} is not an address of this machine ({error.strerror}). "
        "Set HOST to 0.0.0.0 (IPv4), :: (IPv6 and IPv4) or 127.0.0.1 (this machine alone)."
    )


def holder_of(port: int) -> str | None:
    """Name the program that listens on a port, as far as this user may see it."""
    try:
        found = _find_in_proc(port) if sys.platform == "linux" else _find_by_lsof(port)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if found is None:
        return None
    pid, name = found
    return f"{name} (process {pid})"


def _find_in_proc(port: int) -> tuple[str, str] | None:
    sockets = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                return process.name, repr(command[:100].decode(errors="replace"))
        except OSError:
            continue  # another user's, or it ended at this moment
    return None


def _find_by_lsof(port: int) -> tuple[str, str] | None:
    command = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]  # p123 and cNAME, a line each
    said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    words = {line[:1]: line[1:] for line in reversed(said.splitlines())}
    if "p" not in words:
        return None
    # On macOS port 5000 is taken out of the box.
    is_airplay = words.get("c", "").startswith("ControlCe")
    return words["p"], "the AirPlay Receiver of macOS" if is_airplay else words.get("c", "")

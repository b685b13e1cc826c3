"""What doctor knows of hosts: who blocks mail, and what sort of disk a folder is on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.kit.host.known_hosts import find_host

MOUNTS = Path("/proc/self/mounts")
IN_MEMORY = ("tmpfs", "ramfs")
LAYERS = ("overlay", "aufs", "fuse.fuse-overlayfs")
"""File systems of a container's own files."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre")


BLOCKED = (
    "Hosts that block SMTP: free Render services (ports 25, 465, 587), Railway below Pro (all of them), Hugging "
    "Face Spaces (all but 80, 443, 8080), free PythonAnywhere accounts, Hetzner Cloud (25 and 465, not 587), "
    "DigitalOcean (25, often the others), Google Cloud, AWS and Azure (25)."
)
WAY_OUT = (
    "MAIL_URL=resend://YOUR_API_KEY sends over HTTPS instead; some providers also take SMTP at port 2525."
)


def smtp_advice(environ: Mapping[str, str]) -> str:
    """Say who blocks SMTP, this host if it is one that does, and what goes through."""
    host = find_host(environ)
    blocked = f"This is {host.name}: {host.smtp}." if host and host.smtp else BLOCKED
    return f"{blocked} {WAY_OUT}"


@dataclass(frozen=True)
class Mount:
    """Where a file system hangs, and its kind."""

    point: str
    kind: str


def find_mount(folder: Path, mounts: Path = MOUNTS) -> Mount | None:
    """Return the mount a folder is on; None where the system does not list them."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    wanted, found = os.path.realpath(folder), None
    for line in lines:
        _, point, kind = line.split(" ")[:3]
        point = point.replace("\\040", " ").rstrip("/")
        deeper = found is None or len(point) >= len(found.point.rstrip("/"))  # of two on one point the later
        if deeper and f"{wanted}/".startswith(f"{point}/"):
            found = Mount(point or "/", kind)
    return found

"""What is known of hosts: which block mail, which forget files, and what sort of disk a folder is on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
IN_MEMORY = ("tmpfs", "ramfs")
LAYERS = ("overlay", "aufs", "fuse.fuse-overlayfs")
"""File systems of a container's own files."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre")


@dataclass(frozen=True)
class Host:
    """A host, known by an environment variable it sets; what it does to SMTP and to files, if anything."""

    name: str
    variable: str
    smtp: str = ""
    files: str = ""
    keeps_volumes: bool = True
    """Whether a disk that was added to the site keeps what is on it."""


HOSTS = (
    Host(
        "a published Replit app", "REPLIT_DEPLOYMENT",
        files="each publish starts from a copy of the workspace, and on Autoscale each wake-up does, where jobs "
        "also stop between requests. Publish as a Reserved VM, and take backups before you publish again",
        keeps_volumes=False,
    ),
    Host(
        "Render", "RENDER",
        smtp="its free web services block ports 25, 465 and 587",
        files="without a persistent disk they are gone at each restart and deploy",
    ),
    Host(
        "Railway", "RAILWAY_ENVIRONMENT_NAME",
        smtp="SMTP is blocked below its Pro plan",
        files="without a volume they are gone at each deploy",
    ),
    Host("Fly.io", "FLY_APP_NAME", files="without a volume they are gone at each restart"),
    Host(
        "Hugging Face Spaces", "SPACE_ID",
        smtp="only ports 80, 443 and 8080 lead out",
        files="without persistent storage they are gone at each restart",
    ),
    Host("Heroku", "DYNO", files="they are gone at each restart, at least once a day", keeps_volumes=False),
    Host("Koyeb", "KOYEB_APP_NAME", smtp="port 25 is blocked, 587 is not"),
    Host(
        "PythonAnywhere", "PYTHONANYWHERE_DOMAIN",
        smtp="its free accounts reach listed sites only, by an HTTP proxy",
    ),
)  # fmt: skip

BLOCKED = (
    "Hosts that block SMTP: free Render services (ports 25, 465, 587), Railway below Pro (all of them), Hugging "
    "Face Spaces (all but 80, 443, 8080), free PythonAnywhere accounts, Hetzner Cloud (25 and 465, not 587), "
    "DigitalOcean (25, often the others), Google Cloud, AWS and Azure (25)."
)
WAY_OUT = (
    "MAIL_URL=resend://YOUR_API_KEY sends over HTTPS instead; some providers also take SMTP at port 2525."
)


def find_host(environ: Mapping[str, str]) -> Host | None:
    """Return the host this runs on, if it is one we know."""
    return next((host for host in HOSTS if environ.get(host.variable)), None)


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

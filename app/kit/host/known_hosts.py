"""The hosts we know: how to tell that we run there, and what each does to addresses, visitors, mail and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A host, known by an environment variable it sets; what it does to SMTP and to files, if anything."""

    name: str
    variable: str
    domains: tuple[str, ...]
    """Below these it gives every site a name of its own, so nobody else can let one lead elsewhere."""
    named_in: tuple[str, ...] = ()
    """Variables with the names of this site, separated by commas; the first is the one to write into links."""
    proxies: int = 1
    """Entries of its own at the end of X-Forwarded-For, of which the first is the visitor's address."""
    is_public: bool = True
    port_in_name: bool = False
    """Whether a site's name there ends in its port: books-5000.app.github.dev."""
    in_frame: bool = False
    """Whether it shows the site in a frame of a page of its own."""
    smtp: str = ""
    files: str = ""
    keeps_volumes: bool = True
    """Whether a disk that was added to the site keeps what is on it."""

    def names(self, environ: Mapping[str, str], port: int) -> tuple[str, ...]:
        """Return the names of the site here, as far as the host tells them."""
        told = [name.strip() for variable in self.named_in for name in environ.get(variable, "").split(",")]
        below = f"-{port}{self.domains[0]}" if self.port_in_name else self.domains[0]
        # Fly.io and GitHub tell the first part only.
        return tuple(name if "." in name else name + below for name in told if name)


REPLIT = (".replit.dev", ".replit.app", ".repl.co")
HOSTS = (
    Host(
        "a published Replit app", "REPLIT_DEPLOYMENT", REPLIT, ("REPLIT_DOMAINS",),
        files="each publish starts from a copy of the workspace, and on Autoscale each wake-up does, where jobs "
        "also stop between requests. Publish as a Reserved VM, and take backups before you publish again",
        keeps_volumes=False,
    ),
    Host(
        "a Replit workspace", "REPL_ID", REPLIT, ("REPLIT_DOMAINS", "REPLIT_DEV_DOMAIN"),
        is_public=False, in_frame=True,
    ),
    Host(
        # Its proxy asks by this name or by localhost. Source: github.com/mastodon/mastodon/pull/26400
        "a GitHub codespace", "CODESPACE_NAME", (".app.github.dev",), ("CODESPACE_NAME",),
        port_in_name=True, proxies=0, is_public=False, in_frame=True,
    ),
    Host(
        "Render", "RENDER", (".onrender.com",), ("RENDER_EXTERNAL_HOSTNAME",),
        proxies=2,  # the visitor's, and that of Cloudflare before it
        smtp="its free web services block ports 25, 465 and 587",
        files="without a persistent disk they are gone at each restart and deploy",
    ),
    Host(
        "Railway", "RAILWAY_ENVIRONMENT_NAME", (".up.railway.app", ".railway.internal"), ("RAILWAY_PUBLIC_DOMAIN",),
        smtp="SMTP is blocked below its Pro plan",
        files="without a volume they are gone at each deploy",
    ),
    Host(
        "Fly.io", "FLY_APP_NAME", (".fly.dev", ".internal", ".flycast"), ("FLY_APP_NAME",),
        proxies=2,  # the visitor's, and the site's own. Source: fly.io/docs/networking/request-headers
        files="without a volume they are gone at each restart",
    ),
    Host(
        "Hugging Face Spaces", "SPACE_ID", (".hf.space",), ("SPACE_HOST",),
        in_frame=True,
        smtp="only ports 80, 443 and 8080 lead out",
        files="without persistent storage they are gone at each restart",
    ),
    Host(
        "Heroku", "DYNO", (".herokuapp.com",), ("HEROKU_APP_DEFAULT_DOMAIN_NAME",),
        files="they are gone at each restart, at least once a day", keeps_volumes=False,
    ),
    Host(
        "Koyeb", "KOYEB_APP_NAME", (".koyeb.app",), ("KOYEB_PUBLIC_DOMAIN",),
        smtp="port 25 is blocked, 587 is not",
    ),
    Host(
        "PythonAnywhere", "PYTHONANYWHERE_DOMAIN", (".pythonanywhere.com",),
        smtp="its free accounts reach listed sites only, by an HTTP proxy",
    ),
)  # fmt: skip


def find_host(environ: Mapping[str, str]) -> Host | None:
    """Return the host this runs on, if it is one we know."""
    return next((host for host in HOSTS if environ.get(host.variable)), None)

"""What the start says: where the site is, its data, its mail, and how the operator gets in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings


def address_to_open(settings: Settings, port: int) -> str:
    """Return what PUBLIC_URL or a host we know says, else the address on this machine."""
    is_told = settings.public_url != f"http://localhost:{settings.port}"
    return settings.public_url if is_told else f"http://localhost:{port}"


def banner(settings: Settings, address: str, token_is_chosen: bool) -> str:
    """Write the lines that the start prints.

    A token that was made at the start is in the link, for nobody can know it else. One that was chosen is known to
    who chose it, and stays out of the log.
    """
    scheme = settings.mail_url.partition(":")[0]
    mail = (
        f"by {scheme.replace('+plain', ' (not encrypted)')}" if scheme else f"built-in inbox, {address}/inbox"
    )
    way_in = " with your ADMIN_TOKEN" if token_is_chosen else f"?token={settings.admin_token}"
    return "\n".join(
        [
            f"Postroom ({settings.environment}) serves {address}",
            f"  data      {settings.data_dir}",
            f"  mail      {mail}",
            f"  operator  {address}/sign-in{way_in}",
        ]
    )

"""What the start prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.kit.host.banner import address_to_open, banner
from app.settings import Settings

ADDRESS = "http://localhost:5000"


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"PORT": "0"}, "http://localhost:4711"),
        ({"PORT": "0", "PUBLIC_URL": "https://books.example"}, "https://books.example"),
        ({"RENDER": "true", "RENDER_EXTERNAL_HOSTNAME": "b.onrender.com"}, "https://b.onrender.com"),
        ({"REPL_ID": "1", "REPLIT_DEV_DOMAIN": "x.replit.dev"}, "https://x.replit.dev"),
    ],
)
def test_the_address_to_open_is_that_of_the_host_where_it_is_known(
    environ: dict[str, str], address: str
) -> None:
    assert address_to_open(Settings.read(environ), 4711) == address


def test_a_token_that_was_made_is_in_the_link_and_one_that_was_chosen_is_not() -> None:
    settings = Settings(admin_token="s3cret-token")
    assert f"operator  {ADDRESS}/sign-in?token=s3cret-token" in banner(
        settings, ADDRESS, token_is_chosen=False
    )
    assert "s3cret-token" not in banner(settings, ADDRESS, token_is_chosen=True)


@pytest.mark.parametrize(
    ("mail_url", "said"),
    [
        ("", f"built-in inbox, {ADDRESS}/inbox"),
        ("smtps://cleo:hunter2@localhost", "by smtps"),
        ("smtp+plain://localhost", "by smtp (not encrypted)"),
        ("resend://re_12345", "by resend"),
    ],
)
def test_it_says_where_mail_goes_and_no_password(mail_url: str, said: str) -> None:
    text = banner(Settings(mail_url=mail_url, data_dir=Path("/data")), ADDRESS, token_is_chosen=True)
    assert f"  mail      {said}\n" in text
    assert "hunter2" not in text
    assert "re_12345" not in text

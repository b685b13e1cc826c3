"""What the start prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.banner import banner
from app.settings import Settings

ADDRESS = "http://localhost:5000"


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

"""Pictures of the main pages, to be looked at: telephone and desktop, light and dark; two of them are README's.

PICTURES_DIR says where they go. With UPDATE_PICTURES=1 README's two are made anew.
"""

from __future__ import annotations

import math
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.browser.conftest import NewVisitor, held_alerts, make_site
from tests.kit.browser.main_pages import MainPage, fill
from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import PROJECT_DIR, Site

README_PICTURES = PROJECT_DIR / ".github/pictures"
MOST_BYTES = 300_000
"""Of README's two pictures together."""
SIZES = {"telephone": (390, 844), "desktop": (1280, 900)}
PICTURED = (
    "books", "inbox", "mail", "job", "failed job for the operator", "desk", "mails on the desk", "sign in",
    "confirm", "not found",
)  # fmt: skip
LIGHTNESS = """() => {
    const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number);
    return (red + green + blue) / 765;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go."""
    folder = Path(os.environ.get("PICTURES_DIR") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def busy_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, MainPage]]]:
    """A site that looks as if it had worked for an hour, and its main pages."""
    site = make_site(tmp_path_factory.mktemp("busy"))
    with site:
        pages = fill(site)
        site.stop()
        write_an_hour(site.data_dir / "postroom.db", int(time.time() // 60))
        site.start()
        yield site, pages


def write_an_hour(database: Path, present: int) -> None:
    """Let the last hour's numbers tell of mails that come in waves."""
    dice = random.Random(1)
    with sqlite3.connect(database) as connection:
        for ago in range(1, 60):
            wave = (1.2 + math.sin(ago / 6)) * dice.uniform(0.6, 1)
            mails, books = round(90 * wave), round(2 * wave)
            rows = [
                ("tasks.emails.deliver_email", mails, mails - mails // 60, mails // 60, 40 * wave, 22),
                ("tasks.bookshop.alert_subscribers", books, books, 0, 6, 180 + 90 * wave),
            ]
            for task, enqueued, done, failed, wait_ms, run_ms in rows:
                sums = [round(enqueued * wait_ms), round(enqueued * run_ms), round(3 * run_ms)]
                connection.execute(
                    "INSERT OR REPLACE INTO postroom_past_minutes (minute, task, enqueued, done, failed, cancelled,"
                    " wait_ms, run_ms, run_ms_max) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?)",
                    (present - ago, task, enqueued, done, failed, *sums),
                )
    connection.close()


@pytest.mark.parametrize("name", PICTURED)
def test_the_page_is_pictured_on_a_telephone_and_a_desktop_in_light_and_dark(
    busy_site: tuple[Site, dict[str, MainPage]], new_visitor: NewVisitor, folder: Path, name: str
) -> None:
    site, pages = busy_site
    visitor = new_visitor(at=site)
    if pages[name].for_operator:
        visitor.sign_in()
    for scheme in ("light", "dark"):
        for device, (width, height) in SIZES.items():
            visitor.page.set_viewport_size({"width": width, "height": height})
            visitor.page.emulate_media(color_scheme=scheme)
            page = visitor.visit(pages[name].path, pages[name].status)
            page.wait_for_load_state("networkidle") if name == "mail" else None
            assert (page.evaluate(LIGHTNESS) > 0.5) == (scheme == "light")
            picture = folder / f"{name.replace(' ', '-')}-{device}-{scheme}.png"
            page.screenshot(path=picture, full_page=True, animations="disabled")
            assert picture.stat().st_size > 5_000, "that must be an empty page"


def test_readmes_pictures_can_be_made(
    busy_site: tuple[Site, dict[str, MainPage]], new_visitor: NewVisitor, folder: Path
) -> None:
    target = README_PICTURES if os.environ.get("UPDATE_PICTURES") == "1" else folder
    target.mkdir(exist_ok=True)
    site, _ = busy_site
    visitor = new_visitor(at=site, viewport={"width": 1100, "height": 640}, color_scheme="light")
    picture_job_at_work(site, visitor, target / "job.png")
    visitor.sign_in()
    visitor.page.set_viewport_size({"width": 1100, "height": 1000})
    picture(visitor.visit("/desk"), target / "desk.png")


def picture_job_at_work(site: Site, visitor: Visitor, path: Path) -> None:
    """Add a book of a genre with many readers, and picture the job that tells them while it is at it."""
    page = visitor.visit("/")
    page.get_by_role("form", name="Subscribe").get_by_label("Genre").select_option("Poetry")
    page.get_by_role("button", name="made-up readers").click()
    page.locator("#notice", has_text="Poetry has 300 readers").wait_for()
    book = {"title": "Letters to Nobody", "author": "Ines Marlow", "genre": "Poetry"}
    with held_alerts(site, at=150):
        added = site.post("/api/books", book)[1]
        page = visitor.visit(f"/jobs/{added['job']['id']}")
        page.locator("#progress-text", has_text="150 of 300").wait_for()
        page.reload()  # the bar is there at once, where before it was still on its way
        picture(page, path)


def picture(page: Any, path: Path) -> None:
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size <= MOST_BYTES // 2

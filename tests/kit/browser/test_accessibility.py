"""Every main page can be read, reached by keyboard and held in one hand: labels, contrast, focus, width."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.kit.browser.conftest import make_site
from tests.kit.browser.main_pages import NAMES, MainPage, fill
from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import Site

NARROW = {"width": 360, "height": 740}
STOPS_AT_MOST = 300

# What can be pressed or typed into, in the order of the page; what is folded away or hidden cannot.
STOPS = """() => [...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, iframe, [tabindex='0']")]
    .filter(one => one.checkVisibility({visibilityProperty: true}) && one.type !== "hidden" && !one.disabled)
    .map((one, place) => { one.dataset.stop = place; return place; })"""

# Where the focus is, and whether one sees it: an outline or a frame, and inside the window.
FOCUS = """() => {
    const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    const inside = box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
    return {stop: one.dataset.stop ? Number(one.dataset.stop) : null,
        seen: (outlined && inside) || one.tagName === "IFRAME",  // there the mail's own links have the focus
        what: one.outerHTML.slice(0, 120)};
}"""

TOO_WIDE = """() => [...document.querySelectorAll("main *")]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, .hidden"))
    .map(one => one.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def full_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, MainPage]]]:
    """A site of its own with something on every page, and those pages."""
    with make_site(tmp_path_factory.mktemp("full")) as site:
        yield site, fill(site)


@pytest.fixture(scope="module")
def visitors(chromium: Any, full_site: tuple[Site, dict[str, MainPage]]) -> Iterator[dict[bool, Visitor]]:
    """A stranger's window and the operator's: False and True."""
    visitors = {for_operator: Visitor(chromium.new_context(), full_site[0]) for for_operator in (False, True)}
    visitors[True].sign_in()
    yield visitors
    for visitor in visitors.values():
        visitor.close()


@pytest.fixture(params=NAMES)
def shown(
    request: pytest.FixtureRequest,
    full_site: tuple[Site, dict[str, MainPage]],
    visitors: dict[bool, Visitor],
) -> Iterator[Any]:
    """Each main page, opened."""
    wanted = full_site[1][request.param]
    visitor = visitors[wanted.for_operator]
    visitor.page.set_viewport_size({"width": 1280, "height": 800})
    yield visitor.visit(wanted.path, wanted.status)
    troubles = [*visitor.troubles]
    visitor.troubles.clear()
    assert not troubles, "\n".join(troubles)


def test_the_usual_judge_of_accessibility_finds_nothing_in_light_and_dark(shown: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        shown.emulate_media(color_scheme=scheme)
        found = axe.run(shown)
        assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"


def test_every_stop_of_the_keyboard_is_reached_in_order_and_seen(shown: Any) -> None:
    stops = shown.evaluate(STOPS)
    reached: list[int] = []
    for _ in range(STOPS_AT_MOST):
        shown.keyboard.press("Tab")
        focus = shown.evaluate(FOCUS)
        if focus["stop"] is None or reached[-1:] == [focus["stop"]]:
            continue  # between the last and the first, or at several links of one frame
        if focus["stop"] in reached:
            break
        assert focus["seen"], f"the focus is not to be seen on {focus['what']}"
        reached.append(focus["stop"])
    begin = reached.index(min(reached))  # a page may begin with the focus in its form
    assert reached[begin:] + reached[:begin] == sorted(reached), "the keyboard jumps about"
    missed = [
        shown.locator(f"[data-stop='{stop}']").evaluate("one => one.outerHTML")
        for stop in stops
        if stop not in reached
    ]
    assert not missed, f"the keyboard does not reach {missed}"


def test_nothing_is_wider_than_a_small_telephone(shown: Any) -> None:
    shown.set_viewport_size(NARROW)
    assert shown.evaluate(TOO_WIDE) == []
    assert shown.evaluate("document.scrollingElement.scrollWidth") <= NARROW["width"]


def test_every_field_has_a_label_of_its_own(shown: Any) -> None:
    unlabelled = shown.locator("input:not([type=hidden], [hidden]), select, textarea").evaluate_all(
        "fields => fields.filter(field => !field.labels.length).map(field => field.outerHTML)"
    )
    assert unlabelled == []
    levels = shown.locator("h1, h2, h3, h4").evaluate_all(
        "heads => heads.map(head => Number(head.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels

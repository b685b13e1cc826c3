"""A site with something on every page, and the list of those pages: for the tests that look at all of them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.kit.site_process import CONFIRM_LINK, UNSUBSCRIBE_LINK, Site


@dataclass(frozen=True)
class MainPage:
    """A page: its name, its path, and what is answered with."""

    name: str
    path: str
    status: int = 200
    for_operator: bool = False


NAMES = (
    "books", "inbox", "mail", "mail as text", "mail's headers", "mail's source", "job", "failed job",
    "failed job for the operator", "desk", "mails on the desk", "mail on the desk", "host", "sign in", "confirm",
    "unsubscribe", "not found",
)  # fmt: skip


def fill(site: Site) -> dict[str, MainPage]:
    """Subscribe readers, add books, let a job fail and one wait; return every page by its name."""
    for reader in ("cleo", "bob"):
        site.subscribe(f"{reader}@example.com", "Mystery")
    for title, author in (("The Last Letter", "Ines Marlow"), ("A Fog of Ledgers", "Tobias Wren")):
        status, added = site.post("/api/books", {"title": title, "author": author, "genre": "Mystery"})
        assert status == 201, added
        assert site.get(added["job"]["url"] + "?wait=20")[1]["state"] == "done"
    failed = site.post("/api/test/fail", {"word": "the ink has run out"})[1]["id"]
    assert site.get(f"/api/jobs/{failed}?wait=20")[1]["state"] == "failed"
    confirm, unsubscribe = (
        urlsplit(site.find_link("cleo@example.com", link)).path for link in (CONFIRM_LINK, UNSUBSCRIBE_LINK)
    )
    mail = site.get("/api/inbox")[1]["emails"][0]["id"]
    pages = (
        MainPage("books", "/"),
        MainPage("inbox", "/inbox"),
        MainPage("mail", f"/inbox/{mail}?view=html"),
        MainPage("mail as text", f"/inbox/{mail}?view=text"),
        MainPage("mail's headers", f"/inbox/{mail}?view=headers"),
        MainPage("mail's source", f"/inbox/{mail}?view=source"),
        MainPage("job", "/jobs/" + added["job"]["id"]),
        MainPage("failed job", f"/jobs/{failed}"),
        MainPage("failed job for the operator", f"/jobs/{failed}", for_operator=True),
        MainPage("desk", "/desk", for_operator=True),
        MainPage("mails on the desk", "/desk/emails", for_operator=True),
        MainPage("mail on the desk", f"/desk/emails/{mail}", for_operator=True),
        MainPage("host", "/desk/doctor", for_operator=True),
        MainPage("sign in", "/sign-in"),
        MainPage("confirm", confirm),
        MainPage("unsubscribe", unsubscribe),
        MainPage("not found", "/nowhere", status=404),
    )
    assert tuple(page.name for page in pages) == NAMES
    return {page.name: page for page in pages}

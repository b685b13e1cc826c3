"""A window on the site that notes every dialog, failed script, console error and refusal of the page's policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.kit.site_process import Site

# Runs before any script of a page, and is not subject to the page's policy.
NOTES = """
window.layoutShift = 0;
new PerformanceObserver(list => list.getEntries().forEach(entry => {
    if (!entry.hadRecentInput) window.layoutShift += entry.value;
})).observe({type: "layout-shift", buffered: true});
addEventListener("securitypolicyviolation", event => console.error(
    `refused by the page's policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
PATIENCE_MS = 15_000
MOST_RELOADS = 200


class Visitor:
    """One window (a browser context with a page); what went wrong in it stands in `troubles`."""

    def __init__(self, context: Any, site: Site) -> None:
        self.site, self.context, self.troubles = site, context, []  # type: tuple[Site, Any, list[str]]
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(NOTES)
        context.on("page", self._watch)
        self.page = context.new_page()

    def visit(self, path: str, status: int = 200, wait_until: str = "load") -> Any:
        """Open a path of the site (or an address of it), and expect the status."""
        answer = self.page.goto(urljoin(f"http://localhost:{self.site.port}", path), wait_until=wait_until)
        assert answer.status == status, f"{path}: {answer.status}, expected {status}"
        if status >= 400:
            self.forgive(f"the server responded with a status of {status}")
        return self.page

    @property
    def path(self) -> str:
        """The path of the page that is open now."""
        return urlsplit(self.page.url).path

    def sign_in(self) -> Any:
        """Sign in as the operator, by the form."""
        self.visit("/sign-in")
        self.page.get_by_label("Token").fill(self.site.environ["ADMIN_TOKEN"])
        self.page.get_by_role("button", name="Sign in").click()
        return self.page

    def reload_until(self, is_there: Callable[[], bool]) -> None:
        """Load the page again until something is there, as a person without a script would."""
        for _ in range(MOST_RELOADS):
            if is_there():
                return
            self.page.reload()
        raise AssertionError(f"{self.page.url} still has not what was waited for:\n" + self.page.content())

    def mark(self) -> None:
        """Leave a mark on the page, which a reload or a navigation wipes off."""
        self.page.evaluate("window.mark = true")

    def has_mark(self) -> bool:
        """Say whether the page is still the one that was marked."""
        return bool(self.page.evaluate("window.mark === true"))

    def forgive(self, words: str) -> None:
        """Take what the test provoked out of the troubles."""
        self.troubles[:] = [line for line in self.troubles if words not in line]

    def close(self) -> None:
        """Close the window."""
        self.context.close()

    def _watch(self, page: Any) -> None:
        page.on("dialog", self._on_dialog)
        page.on("pageerror", lambda error: self.troubles.append(f"{page.url}: a script failed: {error}"))
        page.on("console", lambda message: self._on_console(page, message))

    def _on_dialog(self, dialog: Any) -> None:
        self.troubles.append(f"{dialog.page.url}: a dialog opened: {dialog.message}")
        dialog.dismiss()

    def _on_console(self, page: Any, message: Any) -> None:
        # Our own NOTES go into every frame, and a mail's frame runs no script at all.
        of_sandbox = "frame is sandboxed and the 'allow-scripts' permission is not set" in message.text
        if message.type in ("error", "warning") and not of_sandbox:
            place = message.location.get("url", "")
            self.troubles.append(f"{page.url}: {message.text} ({place})")

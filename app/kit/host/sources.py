"""When the project's own files were last edited, for the reload in development."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = (".py", ".html", ".txt", ".css", ".js")


class Sources:
    """The files that make up the site; a folder is listed again only when something came or went in it."""

    def __init__(self, project_dir: Path) -> None:
        self._project_dir = project_dir
        self._folders: dict[str, int] = {}
        self._files: list[str] = []

    def edited_at_ns(self) -> int:
        """Return when the newest edit was made. Units: nanoseconds, as in st_mtime_ns."""
        try:
            if not self._folders or any(
                os.stat(folder).st_mtime_ns != then for folder, then in self._folders.items()
            ):
                self._list()
            return max((os.stat(file).st_mtime_ns for file in self._files), default=0)
        except FileNotFoundError:  # an editor replaces a file in two steps
            self._folders = {}
            return self.edited_at_ns()

    def _list(self) -> None:
        self._folders, self._files = {}, [str(path) for path in self._project_dir.glob("main.py")]
        for top in ("app", "tasks"):
            for folder, _, names in os.walk(self._project_dir / top):
                if not folder.endswith("__pycache__"):
                    self._folders[folder] = os.stat(folder).st_mtime_ns
                    self._files += [os.path.join(folder, name) for name in names if name.endswith(SUFFIXES)]

"""What lets every test have an app of its own: routes and tables are made once, and used by all of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from werkzeug.routing import Rule

from app import create_app
from app.settings import Settings


@cache
def empty_database(environment: str) -> bytes:
    """Return a database file as the site makes it at its first start."""
    with TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), environment=environment)
        database = create_app(settings).extensions["database"]
        database.open()
        database.close()
        return settings.database_path.read_bytes()


class KnownRule(Rule):
    """A route that another app of these tests had already is not compiled again: half an app's time goes there."""

    known: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, string: str, **options: Any) -> None:
        super().__init__(string, **options)
        self.asked = repr((string, sorted(options.items())))

    def compile(self) -> None:
        """Take over what compiling the same route came to."""
        if self.asked in self.known:
            vars(self).update(self.known[self.asked] | {"map": self.map})
        else:
            super().compile()
            self.known[self.asked] = dict(vars(self))

"""Builds the Flask app: settings, database, pages. Starts no thread and opens no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.kit.engine.api.durable import DurableHuey
    from app.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """Build the app; jobs run in it once `app.extensions["consumer"].start()` is called.

    Raises: SettingError when a variable of the environment cannot be used.
    """
    # Imported inside, so that `import app.settings` costs nothing and no module is imported in a circle.
    import secrets

    import app as package
    import tasks
    from app.kit import yours
    from app.kit.database.file import Database
    from app.kit.engine.wiring import huey
    from app.kit.mail import ledger
    from app.kit.register import register
    from app.kit.web.client_address import ClientAddress
    from app.kit.web.error_pages import Site
    from app.settings import Settings

    settings = settings or Settings.read()
    app = Site(__name__)
    # The kept key is not read here, for this opens no file; gunicorn.conf.py has it in SECRET_KEY by now.
    cookie_key = settings.secret_key or secrets.token_hex(32)
    app.config.update(SECRET_KEY=cookie_key, MAX_CONTENT_LENGTH=settings.max_request_bytes)
    if proxies := settings.behind_proxy:
        app.wsgi_app = ClientAddress(app.wsgi_app, proxies)  # type: ignore[method-assign]

    yours.load_tasks(tasks)
    database = Database(
        settings.database_path,
        settings.environment,
        settings.sqlite_synchronous,
        [huey.migrations, ledger.migrations, *yours.find_migrations(package)],
    )
    database = huey.attach(database, settings, app.app_context, make_queue_in_child)
    app.extensions.update(
        settings=settings,
        database=database,
        consumer=huey.create_consumer(workers=settings.task_threads),
    )
    register(app, yours.find_pages(package))
    return app


def make_queue_in_child(settings: Settings) -> DurableHuey:
    """Build the app in a process that runs bodies of tasks with process=True, and return its queue."""
    from app.kit.engine.wiring import huey
    from app.kit.host import logs

    logs.configure(settings.log_level, settings.secrets)
    create_app(settings)
    return huey

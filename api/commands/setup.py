"""`notifyr migrate`, and what `notifyr run` does first: tables, the default profile, somebody who may sign in."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import typer

from api import console
from api.commands.common import Json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from assistant.db.access import Agent

__all__ = ["register"]

FIRST_AGENT = "admin@localhost"


def register(app: typer.Typer) -> None:
    """Add `migrate` and the hidden `prepare`."""
    app.command("migrate")(migrate)
    app.command("prepare", hidden=True)(prepare)


def migrate(as_json: Json = False) -> None:
    """Bring the database to the tables of this version; does nothing when it is. Back up before an upgrade.

    Example: NOTIFYR_DATABASE_URL=postgresql+psycopg://... notifyr migrate
    """
    from api.startup import require_folder
    from assistant.db.migrate import migrate as run
    from assistant.settings import load_settings

    settings = load_settings()
    if settings.database_url is None:
        require_folder(settings)
    revision = run(settings.sql_url)
    console.emit({"revision": revision}, [f"The database is at revision {revision}."], as_json=as_json)


def prepare(as_json: Json = False) -> None:
    """What has to be there before the processes start. `notifyr run` calls it.

    Example: notifyr prepare --json
    """
    from api.startup import problems
    from assistant.backends.secrets import secret_key
    from assistant.db.migrate import migrate as run
    from assistant.db.session import Database
    from assistant.errors import ConfigurationError
    from assistant.services import access, profiles
    from assistant.settings import load_settings
    from assistant.telemetry import configure_logging

    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    if found := problems(settings):
        raise ConfigurationError(found)
    if settings.redis_url is not None:
        from assistant.backends.bus import Bus
        from assistant.backends.valkey import wait_for_redis

        wait_for_redis(settings.redis_url.get_secret_value(), seconds=10)
        with closing(Bus(settings.redis_url.get_secret_value())) as bus:
            bus.forget_models()
    secret_key(settings)
    revision = run(settings.sql_url)
    token = ""
    with closing(Database(settings.sql_url, pool_size=1)) as database, database.transaction() as session:
        profiles.ensure_default(session, settings)
        admin = _first_admin(session)
        if not admin.password_hash:
            token = access.create_link(session, admin.id, purpose="first-run")
    console.emit(
        {"revision": revision, "path": f"/link#{token}" if token else "/"},
        [f"The database is at revision {revision}."],
        as_json=as_json,
    )


def _first_admin(session: Session) -> Agent:
    """The oldest admin; on a new installation there is none yet, so one is made."""
    from assistant.services import access

    admins = [a for a in access.agents(session) if a.role == "admin" and a.disabled_at is None]
    if admins:
        return min(admins, key=lambda agent: agent.created_at)
    return access.create_agent(session, FIRST_AGENT, name="Admin", role="admin")

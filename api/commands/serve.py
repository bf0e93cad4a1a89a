"""`notifyr api`, `worker`, `beat`, `mailboxes`: one process each. `notifyr run` starts all of them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

__all__ = ["register"]

_QUEUES = ("inbound", "outbound", "models", "batch")


def register(app: typer.Typer) -> None:
    """Add the process commands to the `notifyr` command."""
    app.command("api", rich_help_panel="Processes")(api)
    app.command("worker", rich_help_panel="Processes")(worker)
    app.command("beat", rich_help_panel="Processes")(beat)
    app.command("mailboxes", rich_help_panel="Processes")(mailboxes)


def api() -> None:
    """Serve the inbox, the API and the live socket.

    Example: NOTIFYR_PORT=8300 notifyr api
    """
    import uvicorn

    from api.startup import require_interpreter
    from assistant.settings import load_settings
    from assistant.telemetry import configure_logging

    require_interpreter()
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    uvicorn.run(
        "api.main:app_factory",
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=65_536,
        ws_per_message_deflate=False,  # a third of a megabyte for each open page, to squeeze frames of a hundred bytes
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_graceful_shutdown=20,
        h11_max_incomplete_event_size=65_536,
    )


def worker(
    queues: Annotated[str, typer.Option(help=f"Comma separated: {', '.join(_QUEUES)}.", show_default=True)] = ",".join(
        _QUEUES
    ),
    threads: Annotated[int, typer.Option(help="Threads; 0 takes NOTIFYR_WORKER_THREADS.", min=0)] = 0,
    name: Annotated[str, typer.Option(help="Name of this worker in logs.")] = "worker",
    nice: Annotated[
        int,
        typer.Option(help="Steps to stand back (0 to 19) where pages and arriving mail want the cores.", min=0, max=19),
    ] = 0,
) -> None:
    """Work off queues. Give the generator a process of its own, so that a long draft never delays mail.

    Example: notifyr worker --queues models --threads 1
    """
    from api.startup import require_interpreter
    from pipelines.container import build
    from pipelines.worker import run_worker

    require_interpreter()
    wanted = tuple(part.strip() for part in queues.split(",") if part.strip())
    unknown = sorted(set(wanted) - set(_QUEUES))
    if unknown or not wanted:
        raise typer.BadParameter(f"unknown queue {', '.join(unknown) or '(none)'}; choose from {', '.join(_QUEUES)}")
    os.nice(nice)
    container = build()
    if "outbound" in wanted:
        container.notice_relay()
    raise typer.Exit(
        run_worker(container, queues=wanted, threads=threads or container.settings.worker_threads, name=name)
    )


def beat() -> None:
    """Send the periodic tasks (the sweeper). One is enough; two do no harm.

    Example: notifyr beat
    """
    from api.startup import require_interpreter
    from pipelines.container import build
    from pipelines.worker import run_beat

    require_interpreter()
    raise typer.Exit(run_beat(build()))


def mailboxes() -> None:
    """Listen for mail over SMTP.

    Example: NOTIFYR_SMTP_PORT=2525 notifyr mailboxes
    """
    from api.startup import require_interpreter
    from assistant.telemetry import configure_logging
    from pipelines.container import build
    from pipelines.mailboxes import run

    require_interpreter()
    container = build()
    configure_logging(container.settings.log_level, container.settings.log_format)
    run(container)

"""`notifyr knowledge`: the approved answers that drafted replies are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api import console
from api.commands.common import Json, opened_container, text_of

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the `notifyr knowledge` group."""
    group = typer.Typer(
        help="Approved answers, which drafted replies are made from.\n\nExample: notifyr knowledge list",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("add")(add)
    group.command("list")(list_)
    group.command("search")(search)
    group.command("disable")(disable)
    group.command("enable")(enable)
    app.add_typer(group, name="knowledge", rich_help_panel="Content")


def add(
    title: Annotated[str, typer.Argument(help="Short title; the words of the question help the search.")],
    file: Annotated[Path | None, typer.Option(help="File with the text; without it, standard input.")] = None,
    as_json: Json = False,
) -> None:
    """Add an approved answer, or replace the one of that title by a next version.

    Example: echo "We ship within 2 days." | notifyr knowledge add "When do you ship"
    """
    from sqlalchemy import select

    from assistant.db.knowledge import Document
    from assistant.services import knowledge

    text = text_of(file)
    with opened_container() as container, container.database.transaction() as session:
        known = session.scalar(select(Document).where(Document.title == " ".join(title.split())))
        document = (
            knowledge.add(session, title=title, text=text)
            if known is None
            else knowledge.update(session, known.id, text=text)
        )
        fact = {"id": document.id, "title": document.title, "version": document.version}
    _say(fact, f"{fact['title']}, version {fact['version']} ({fact['id']})", as_json=as_json)


def list_(
    every: Annotated[bool, typer.Option("--all", help="The disabled ones too.")] = False, as_json: Json = False
) -> None:
    """List the approved answers.

    Example: notifyr knowledge list --all
    """
    from assistant.services import knowledge

    with opened_container() as container, container.database.reading() as session:
        facts = [
            {"id": item.id, "title": item.title, "version": item.version, "disabled": item.disabled_at is not None}
            for item in knowledge.list_documents(session, disabled=every)
        ]
    text = "\n".join(
        f"{f['id']}  v{f['version']}  {f['title']}{'  (disabled)' if f['disabled'] else ''}" for f in facts
    )
    _say(facts, text or 'No answers yet. Add one: notifyr knowledge add "Title" --file answer.txt', as_json=as_json)


def search(
    question: Annotated[str, typer.Argument(help="What a customer might write.")],
    limit: Annotated[int, typer.Option(help="Most results.", min=1, max=50)] = 5,
    as_json: Json = False,
) -> None:
    """Search as triage does, without a floor: shows how near each answer is.

    Example: notifyr knowledge search "where is my parcel"
    """
    import tempfile
    from contextlib import closing

    from assistant.backends.vectors import Vectors
    from assistant.errors import ModelUnavailable
    from pipelines.library import Library

    # The index folder belongs to the worker: a search from here builds its own, of the same rows by the same engine.
    with (
        opened_container() as container,
        tempfile.TemporaryDirectory(prefix="notifyr-") as folder,
        closing(Vectors(Path(folder))) as vectors,
    ):
        if container.embedder is None:
            raise ModelUnavailable("the encoder is off: set NOTIFYR_ENCODER")
        library = Library(container.database, vectors, container.embedder)
        found = library.search(question, limit=limit, floor=-1.0)
        floor = container.settings.retrieval_floor
    facts = [{"title": p.source, "score": p.score, "text": p.text, "used": p.score >= floor} for p in found]
    lines = [f"{f['score']:.2f} {'  ' if f['used'] else 'x '}{f['title']}: {str(f['text'])[:90]}" for f in facts]
    _say(facts, "\n".join([*lines, f"(x: below the floor of {floor})"]), as_json=as_json)


def disable(document_id: Annotated[str, typer.Argument(help="Id from the list.")], as_json: Json = False) -> None:
    """Take an answer out of use; suggestions already made keep their copy.

    Example: notifyr knowledge disable 019a0000-0000-7000-8000-000000000000
    """
    _switch("disable", document_id, as_json=as_json)


def enable(document_id: Annotated[str, typer.Argument(help="Id from the list.")], as_json: Json = False) -> None:
    """Take an answer back into use.

    Example: notifyr knowledge enable 019a0000-0000-7000-8000-000000000000
    """
    _switch("enable", document_id, as_json=as_json)


def _switch(verb: str, document_id: str, *, as_json: bool) -> None:
    from assistant.services import knowledge

    with opened_container() as container, container.database.transaction() as session:
        document = {"enable": knowledge.enable, "disable": knowledge.disable}[verb](session, document_id)
        title = document.title
    _say({"id": document_id, "title": title, "disabled": verb == "disable"}, f"{title}: {verb}d", as_json=as_json)


def _say(facts: Any, text: str, *, as_json: bool) -> None:
    console.emit(facts, text.splitlines(), as_json=as_json)

"""`notifyr intents`: an operator's own intents, from the command line as on the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api import console
from api.commands.common import Json, existing, opened_container, text_of

if TYPE_CHECKING:
    from models.heads.labeller import Labeller
    from pipelines.container import Container

__all__ = ["labeller_of", "learn_from", "register"]


def register(app: typer.Typer) -> None:
    """Add the `notifyr intents` group."""
    group = typer.Typer(
        help="Intents of your own, learned from examples.\n\nExample: notifyr intents list",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(list_)
    group.command("add")(add)
    group.command("test")(test)
    app.add_typer(group, name="intents", rich_help_panel="Models")


def list_(as_json: Json = False) -> None:
    """List the intents that operators defined; the ones that ship are named in the model card.

    Example: notifyr intents list
    """
    from assistant.services import intents

    with opened_container() as container, container.database.reading() as session:
        rows: list[dict[str, Any]] = [
            {
                "name": one.name,
                "description": one.description,
                "examples": len(one.examples),
                "version": one.version,
                "used": one.disabled_at is None,
            }
            for one in intents.listed(session)
        ]
    lines = [
        f"{r['name']}  {r['examples']} examples, version {r['version']}{'' if r['used'] else ', off'}" for r in rows
    ]
    console.emit(rows, lines or ["no intents of your own yet: notifyr intents add NAME --file FILE"], as_json=as_json)


def add(
    name: Annotated[str, typer.Argument(help="Name, for example warranty_claim.")],
    file: Annotated[Path | None, typer.Option(help="File with one example a line; without it, standard input.")] = None,
    description: Annotated[str, typer.Option(help="One sentence; it is learned from too.")] = "",
    as_json: Json = False,
) -> None:
    """Define an intent from 4 or more examples, best 8 to 16; an intent of that name gets its next version.

    Example: notifyr intents add warranty_claim --file warranty.txt
    """
    lines = text_of(file).splitlines()
    with opened_container() as container:
        (fact,) = _define(container, {name: lines}, description)
    console.emit(fact, [f"{fact['name']}, version {fact['version']}: in use from the next mail on"], as_json=as_json)


def test(
    text: Annotated[str, typer.Argument(help="What a customer might write.")],
    subject: Annotated[str, typer.Option(help="Its subject.")] = "",
    as_json: Json = False,
) -> None:
    """Say what a mail would get, with the examples it is most like.

    Example: notifyr intents test "my drill broke after a year, is it covered?"
    """
    from models.heads.intents import OTHER, OUTSIDE
    from pipelines.stages.classify import merged, windows

    with opened_container() as container:
        labeller = labeller_of(container)
        shown = windows(subject, text)
        labels = merged(labeller.classify(shown))
        best = [label for label in labels if label.head == "intent"]
        inside = next((label.score for label in labels if label.name == "scope:in"), 1.0)
        sure = best[0].value != OTHER and inside >= OUTSIDE and best[0].score >= container.settings.intent_threshold
        near = labeller.nearest(shown[0], best[0].value)
    fact = {
        "intent": best[0].value if sure else "",
        "labels": [{"name": label.name, "score": round(label.score, 4)} for label in labels],
        "nearest": None if near is None else {"text": near.text, "similarity": round(near.similarity, 3)},
    }
    said = (
        f"{best[0].value} {best[0].score:.0%}"
        if sure
        else f"no intent claimed (best: {best[0].value} {best[0].score:.0%})"
    )
    lines = [said] + ([f"most like: {near.text} ({near.similarity:.2f})"] if near else [])
    console.emit(fact, lines, as_json=as_json)


def learn_from(path: Path, *, as_json: bool) -> None:
    """Define every intent of a JSON file (`{"name": ["example", ...]}`) or of a CSV file with `text` and `intent`."""
    import csv
    import json

    from assistant.errors import InvalidInput

    existing(path)
    found: dict[str, list[str]] = {}
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as rows:
                for row in csv.DictReader(rows):
                    found.setdefault(row["intent"], []).append(row["text"])
        else:
            document = json.loads(path.read_text(encoding="utf-8"))
            found = {str(name): [str(text) for text in texts] for name, texts in document.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, csv.Error) as error:
        raise InvalidInput(
            f'{path} is neither JSON ({{"name": ["example", ...]}}) nor CSV with the columns text and intent: {error}'
        ) from error
    with opened_container() as container:
        facts = _define(container, found)
        head = labeller_of(container).intents
        learned = {"intents": facts, "examples": head.examples(), "left_out_accuracy": round(head.accuracy(), 4)}
    lines = [f"{fact['name']}, version {fact['version']}" for fact in facts]
    lines.append(f"one head on {learned['examples']} examples; {head.accuracy():.1%} of those left out were found")
    console.emit(learned, lines, as_json=as_json)


def _define(container: Container, found: dict[str, list[str]], description: str = "") -> list[dict[str, Any]]:
    """All of them or none."""
    from assistant.services import access, intents

    reserved = labeller_of(container).weights.shipped().labels
    facts = []
    with container.database.transaction() as session:
        known = {one.name: one for one in intents.listed(session)}
        for name, texts in found.items():
            old = known.get(intents.named(name))
            made = (
                intents.define(session, name=name, examples=texts, description=description, reserved=reserved)
                if old is None
                else intents.update(session, old.id, examples=texts, description=description or old.description)
            )
            intents.enable(session, made.id)  # one that was switched off is wanted again
            access.audit(session, "command line", action="intent.defined", subject=made.name)
            facts.append({"name": made.name, "version": made.version, "examples": len(made.examples)})
    return facts


def labeller_of(container: Container) -> Labeller:
    from assistant.errors import ModelUnavailable

    if container.classifier is None:
        raise ModelUnavailable("NOTIFYR_ENCODER is off: intents need the encoder")
    return container.classifier

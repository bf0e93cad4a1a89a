"""Spam beside its peers in one run: bogofilter and SpamAssassin with Bayes learn the same mails and are asked of the same ones.

`make bench-classify CORPUS=... SPLIT=... SMS=...` (docs/model-card.md says where the data can be had). Every threshold is read
on the test part for the same share of false positives, which flatters all alike. Nobody asks the network.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from api.commands.classify import items_in
from assistant.clock import monotonic
from assistant.settings import ROOT
from channels.support.mime import parse
from models.bert import Encoder
from models.training.corpora import clean
from models.training.report import average_precision, calibration_error, recall_at
from tests.support.goals import missed
from tests.support.servers import find_binary

FOLDER = ROOT / "deploy" / "weights" / "encoder"
_MARKS = re.compile(rb"(?mi)^(?:x-spam[\w-]*|delivered-to)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mail:
    path: Path
    label: str
    tested: bool


@dataclass(frozen=True)
class Mails:
    """The corpus as files, without what its own filters wrote into it; `clean` is subject and text only."""

    raw: Sequence[Mail]
    clean: Sequence[Mail]


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Mails:
    """Or a skip that says where the corpus is to be had."""
    paths = {name: os.environ.get(name, "") for name in ("CORPUS", "SPLIT")}
    if missing := [name for name, value in paths.items() if not value]:
        pytest.skip(f"set {', '.join(missing)}: see docs/model-card.md for where the data can be had")
    with Path(paths["SPLIT"]).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    folder = tmp_path_factory.mktemp("mails")
    kinds: dict[str, list[Mail]] = {"raw": [], "clean": []}
    for row in rows:
        content = (Path(paths["CORPUS"]) / row["file"]).read_bytes()
        read = parse(content)
        subject, _, text = clean(read.subject, read.text).partition("\n")
        for kind, written in (
            ("raw", _without_marks(content)),
            ("clean", f"Subject: {subject}\n\n{text}\n".encode("utf-8", "replace")),
        ):
            path = folder / kind / (row["file"].replace("/", "-").removesuffix(".txt") + ".eml")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(written)
            kinds[kind].append(Mail(path, row["label"], row["split"] == "test"))
    return Mails(kinds["raw"], kinds["clean"])


def _without_marks(content: bytes) -> bytes:
    """Without the line that begins an mbox and the verdicts of other filters."""
    content = content.partition(b"\n")[2] if content.startswith(b"From ") else content
    head, between, body = content.partition(b"\n\n")
    return _MARKS.sub(b"", head + b"\n") + between[1:] + body


def _listed(mails: Sequence[Mail]) -> bytes:
    return "".join(f"{one.path}\n" for one in mails).encode()


def _sides(mails: Sequence[Mail]) -> tuple[list[Mail], list[Mail], list[Mail]]:
    """Spam and ham to learn from, and those to be asked of."""
    known = [one for one in mails if not one.tested]
    spam = [one for one in known if one.label == "spam"]
    return spam, [one for one in known if one.label != "spam"], [one for one in mails if one.tested]


def _bogofilter(mails: Sequence[Mail], folder: Path) -> Floats:
    binary = find_binary("bogofilter", "bogofilter")
    spam, ham, asked = _sides(mails)
    folder.mkdir()
    for flag, known in (("-s", spam), ("-n", ham)):
        subprocess.run([binary, "-d", str(folder), "-b", flag], input=_listed(known), check=True, timeout=3600)
    done = subprocess.run(
        [binary, "-d", str(folder), "-b", "-TT"], input=_listed(asked), capture_output=True, check=False, timeout=3600
    )
    found = dict(line.rsplit(" ", 1) for line in done.stdout.decode().splitlines())
    return np.array([float(found[str(one.path)]) for one in asked])


def _spamassassin(mails: Sequence[Mail], folder: Path) -> Floats:
    """Rules and Bayes without the network; two processes ask, as many as there are cores to compare with."""
    learn, perl = find_binary("sa-learn", "spamassassin"), find_binary("perl", "perl")
    spam, ham, asked = _sides(mails)
    folder.mkdir()
    preferences = folder / "user_prefs"
    preferences.write_text(
        f"use_bayes 1\nbayes_path {folder}/bayes\nbayes_auto_learn 0\nbayes_auto_expire 0\nlock_method flock\n"
    )
    for flag, known in (("--spam", spam), ("--ham", ham)):
        names = folder / f"{flag.strip('-')}.txt"
        names.write_bytes(_listed(known))
        told = [learn, "--local", "--no-sync", "-p", str(preferences), flag, "-f", str(names)]
        subprocess.run(told, check=True, capture_output=True, timeout=3600)
    subprocess.run([learn, "--local", "-p", str(preferences), "--sync"], check=True, capture_output=True, timeout=300)

    def ask(part: Sequence[Mail]) -> str:
        told = [perl, str(ROOT / "tests" / "benchmarks" / "spamassassin.pl"), str(preferences)]
        done = subprocess.run(told, input=_listed(part), capture_output=True, check=True, timeout=3600)
        return done.stdout.decode()

    with ThreadPoolExecutor(2) as pool:
        lines = "".join(pool.map(ask, (asked[::2], asked[1::2]))).splitlines()
    found = dict(line.split("\t") for line in lines)
    return np.array([float(found[str(one.path)]) for one in asked])


def _ours(mails: Sequence[Mail]) -> Floats:
    """As `notifyr classify` reads and judges the same files."""
    asked = [one for one in mails if one.tested]
    items = list(items_in([one.path for one in asked]))
    found = Encoder(FOLDER).spam([one.text for one in items], [one.clues for one in items])
    return np.array([verdict.score for verdict in found], dtype=float)


@pytest.mark.slow
@pytest.mark.timeout(9000)
def test_classify_spam_of_whole_mails_beside_its_peers(mails: Mails, tmp_path: Path) -> None:
    asked = [one for one in mails.raw if one.tested]
    truth = np.array([one.label == "spam" for one in asked])
    hard = np.array([one.label == "hard-ham" for one in asked])
    recalls = {}
    ours: dict[str, float] = {}
    for name, ask in (
        ("notifyr", lambda: _ours(mails.raw)),
        ("bogofilter, whole mails", lambda: _bogofilter(mails.raw, tmp_path / "whole")),
        ("bogofilter, subject and text", lambda: _bogofilter(mails.clean, tmp_path / "clean")),
        ("SpamAssassin with Bayes", lambda: _spamassassin(mails.raw, tmp_path / "assassin")),
    ):
        began = monotonic()
        scores = ask()
        recalls[name], threshold = recall_at(scores, truth, 0.001)
        error = f", calibration error {calibration_error(scores, truth):.3f}" if scores.max() <= 1 else ""
        precise, false = average_precision(scores, truth), float((scores[hard] > threshold).mean())
        ours = ours or {
            "recall_at_0.1_percent": recalls[name],
            "pr_auc": precise,
            "hard_ham_false_positives": false,
            "calibration_error": calibration_error(scores, truth),
        }
        sys.stdout.write(
            f"\n  {name}: recall {recalls[name]:.3f} at 0.1 % false positives ({recalls['notifyr'] / recalls[name]:.2f} x in "
            f"notifyr), PR-AUC {precise:.4f}, hard ham {false:.3f}{error}; "
            f"{monotonic() - began:.0f} s to learn and ask"
        )
    sys.stdout.write(f"\n  {len(asked)} mails, {truth.sum()} spam\n")
    assert recalls["notifyr"] >= max(recalls.values())
    assert missed("mail", ours) == []

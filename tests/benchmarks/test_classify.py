"""The classifier against a named filter in one run: bogofilter on the same split. Speed: test_classify_speed.py.

The spam figures need the public corpus: `make bench-classify CORPUS=... SPLIT=... SMS=...` (docs/model-card.md says where
it can be had). Thresholds come from equal false positives on the test part for both sides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assistant.settings import ROOT
from assistant.values import InboundMessage
from channels.support.mime import parse
from channels.support.quotes import split_reply
from channels.support.shape import shape_of
from models.bert import Encoder
from models.training.corpora import Sample, mail_samples, sms_samples
from models.training.report import average_precision, calibration_error, recall_at, spam_report
from tests.support.goals import missed
from tests.support.servers import find_binary

FOLDER = ROOT / "deploy" / "weights" / "encoder"


def _say(text: str) -> None:
    sys.stdout.write(f"\n  {text}")


# -- quality, beside a peer


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """The prepared corpus, or a skip that says where it is to be had."""
    paths = {name: os.environ.get(name, "") for name in ("CORPUS", "SPLIT", "SMS")}
    if missing := [name for name, value in paths.items() if not value]:
        pytest.skip(f"set {', '.join(missing)}: see docs/model-card.md for where the data can be had")

    def read(raw: bytes) -> tuple[InboundMessage, str, tuple[str, ...]]:
        mail = parse(raw)
        return mail, split_reply(mail.text)[0], shape_of(raw)

    return [*mail_samples(Path(paths["CORPUS"]), Path(paths["SPLIT"]), read), *sms_samples(Path(paths["SMS"]))]


def _bogofilter(folder: Path, known: list[Sample], asked: list[Sample]) -> np.ndarray[Any, Any]:
    binary = find_binary("bogofilter", "bogofilter")
    for label, flag in (("spam", "-s"), ("ham", "-n")):
        box = b"".join(b"From a@b Thu Jan  1 00:00:00 1970\n" + _mail(one.text) for one in known if one.label == label)
        subprocess.run([binary, "-d", str(folder), "-M", flag], input=box, check=True, timeout=300)
    box = b"".join(b"From a@b Thu Jan  1 00:00:00 1970\n" + _mail(one.text) for one in asked)
    done = subprocess.run(
        [binary, "-d", str(folder), "-M", "-v", "-T"], input=box, capture_output=True, check=False, timeout=300
    )
    return np.array([float(line.split()[1]) for line in done.stdout.decode().splitlines()])


def _mail(text: str) -> bytes:
    subject, _, body = text.partition("\n")
    safe = "\n".join("." + line if line.startswith("From ") else line for line in body.splitlines())
    return f"Subject: {subject}\n\n{safe}\n\n".encode("utf-8", "replace")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["mail", "sms"])
def test_classify_spam_against_bogofilter(samples: list[Sample], tmp_path: Path, kind: str) -> None:
    chosen = [one for one in samples if (one.source == "sms") == (kind == "sms")]
    asked = [one for one in chosen if one.part == "test"]
    truth = np.array([one.label == "spam" for one in asked])
    found = Encoder(FOLDER).spam([one.text for one in asked], [one.clues for one in asked])
    ours = spam_report(np.array([verdict.score for verdict in found], dtype=float), asked)
    scores = _bogofilter(tmp_path, [one for one in chosen if one.part != "test"], asked)
    recall, _ = recall_at(scores, truth, 0.001)
    _say(f"{kind}, {len(asked)} texts, {truth.sum()} spam: {json.dumps(ours)}")
    _say(
        f"bogofilter: recall {recall:.3f} at 0.1 % false positives, PR-AUC {average_precision(scores, truth):.4f}, "
        f"calibration error {calibration_error(scores, truth):.3f}; ours is {ours['recall_at_0.1_percent'] / recall:.2f} x\n"
    )
    assert ours["recall_at_0.1_percent"] >= recall
    assert missed(kind, ours) == []

"""The classifier against named baselines in one run: bogofilter on the same split, one text at a time, the machine's peak.

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

from assistant.clock import monotonic
from assistant.settings import ROOT
from assistant.values import InboundMessage
from channels.support.mime import parse
from channels.support.shape import shape_of
from models.bert import TOLERANCE, Encoder
from models.training.corpora import Sample, mail_samples, sms_samples
from models.training.report import average_precision, calibration_error, recall_at, spam_report
from tests.support.servers import find_binary

FOLDER = ROOT / "deploy" / "weights" / "encoder"
MAILS = sorted((ROOT / "channels" / "twins" / "mails").glob("*.eml"))
LAYERS, WIDTH = 6, 384


def _say(text: str) -> None:
    sys.stdout.write(f"\n  {text}")


def _stream() -> list[str]:
    """Short questions and whole mails, mixed as they come in."""
    intents = json.loads((ROOT / "models" / "training" / "intents.json").read_text())["examples"]
    short = [text for texts in intents.values() for text in texts][:192]
    parsed = [parse(path.read_bytes()) for path in MAILS]
    long = [f"{one.subject}\n{one.text}" for one in parsed]
    return [text for n, text in enumerate(short) for text in ((text,) if n % 3 else (text, long[n % len(long)]))]


def _rate(act: Any, texts: list[str], rounds: int = 2) -> float:
    best = 0.0
    for _ in range(rounds):
        began = monotonic()
        act(texts)
        best = max(best, len(texts) / (monotonic() - began))
    return best


def _flops(tokens: int) -> float:
    """Multiply-adds times two of one pass: 12 d^2 per token and layer in the matrices, 4 n d in the attention."""
    return LAYERS * tokens * (2 * 12 * WIDTH * WIDTH + 4 * tokens * WIDTH)


def _peak() -> float:
    """fp32 matrix product, GFLOP/s, best of five."""
    size = 1536
    a = np.ones((size, size), dtype=np.float32)
    best = 0.0
    for _ in range(5):
        began = monotonic()
        a @ a
        best = max(best, 2 * size**3 / (monotonic() - began) / 1e9)
    return best


@pytest.mark.slow
def test_classify_bulk_against_one_by_one_and_the_peak_of_the_machine() -> None:
    encoder, texts = Encoder(FOLDER), _stream()
    encoder.classify(texts[:8])
    bulk = _rate(encoder.classify, texts)
    single = _rate(lambda all_texts: [encoder.classify([text]) for text in all_texts], texts)
    long = "Where is my order 42? I have waited for it. " * 60
    times = []
    for _ in range(30):
        began = monotonic()
        encoder.classify([long])
        times.append((monotonic() - began) * 1000)
    median, peak = float(np.median(times)), _peak()
    reached = _flops(256) / (median / 1000) / 1e9
    _say(f"bulk {bulk:.0f} texts/s = {bulk / single:.2f} x one by one ({single:.0f}); all heads, {len(texts)} texts")
    _say(
        f"one text of 256 tokens: p50 {median:.1f} ms = {reached:.0f} GFLOP/s, "
        f"{reached / peak:.2f} x the fp32 matrix product of this run ({peak:.0f})\n"
    )
    together = encoder.classify(texts)
    for text, labels in zip(texts[:40], together[:40], strict=True):
        alone = {label.name: label.score for label in encoder.classify([text])[0]}
        assert all(abs(alone.get(label.name, label.score) - label.score) <= TOLERANCE for label in labels)
    assert bulk > single * 0.8


@pytest.mark.slow
def test_classify_starts_fast_and_small() -> None:
    code = (
        "import resource, sys; from pathlib import Path; from assistant.clock import monotonic; t = monotonic();"
        "from models.bert import Encoder; Encoder(Path(sys.argv[1])).classify(['hello']);"
        "print(monotonic() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    seconds, megabytes = map(float, done.stdout.split())
    _say(f"first label after {seconds:.2f} s, {megabytes:.0f} MB\n")
    assert megabytes < 300


# -- quality, beside a peer


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """The prepared corpus, or a skip that says where it is to be had."""
    paths = {name: os.environ.get(name, "") for name in ("CORPUS", "SPLIT", "SMS")}
    if missing := [name for name, value in paths.items() if not value]:
        pytest.skip(f"set {', '.join(missing)}: see docs/model-card.md for where the data can be had")

    def read(raw: bytes) -> tuple[InboundMessage, tuple[str, ...]]:
        return parse(raw), shape_of(raw)

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

"""The heads beside spam on the weights that ship: opt-outs in fifteen languages, kinds of reply, languages, own intents."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assistant.errors import ModelUnavailable
from assistant.settings import ROOT
from models.bert import Encoder
from models.catalog import load_classifier
from models.heads.intents import Intents, Lessons
from models.heads.labeller import Labeller
from models.heads.language import Languages
from models.heads.linear import calibrated
from models.heads.weights import Weights
from models.heads.wording import columns, folded, may_ask_out, optout_lexicon, sentences
from models.training import figures, labels
from pipelines.stages.classify import OPT_OUT_SURE, OPT_OUT_UNSURE

FOLDER = ROOT / "deploy/weights/encoder"


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    loaded = load_classifier(f"onnx:{FOLDER}", threads=2)
    assert loaded is not None
    loaded.load()
    return loaded


def score(labeller: Labeller, text: str, name: str = "optout:yes") -> float:
    return next(label.score for label in labeller.classify([text])[0] if label.name == name)


def own_phrases() -> list[labels.Phrase]:
    return [one for one in labels.optout_phrases() if one.part[0] in "+-" and one.part not in {"-intents", "-replies"}]


def test_no_opt_out_is_missed_in_a_wording_that_was_not_trained(labeller: Labeller) -> None:
    phrases = labels.optout_phrases()
    found = labels.measure(labeller.encoder, "optout", phrases, apart=labels.TESTED)
    yes = found.truth == found.labels.index("yes")
    probability = found.probabilities[:, found.labels.index("yes")]
    assert yes.sum() >= 120 and (~yes).sum() >= 60
    assert (probability[yes] >= OPT_OUT_UNSURE).mean() >= 0.999
    assert (probability[~yes] >= OPT_OUT_SURE).mean() <= 0.10, "near misses that would stop a customer's mail"


def test_the_shipped_head_misses_no_opt_out_and_records_no_near_miss(labeller: Labeller) -> None:
    phrases = own_phrases()
    assert len({one.language for one in phrases}) >= 15
    found = labeller.classify([one.text for one in phrases])
    scores = np.array([next(one.score for one in row if one.name == "optout:yes") for row in found])
    yes = np.array([one.label == "yes" for one in phrases])
    assert yes.sum() >= 300 and (~yes).sum() >= 200
    assert [phrases[i].text for i in np.flatnonzero(yes & (scores < OPT_OUT_UNSURE))] == []
    assert [phrases[i].text for i in np.flatnonzero(~yes & (scores >= OPT_OUT_SURE))] == []


def test_an_opt_out_in_the_middle_of_a_long_mail_is_found(labeller: Labeller) -> None:
    before = "Thank you for the parcel. The lamp looks good in the kitchen and my sister wants one too. " * 3
    mail = f"Re: your order\n{before}By the way, please stop sending me your newsletter.\nRegards, Ana"
    assert score(labeller, mail) >= 0.5
    assert score(labeller, f"Re: your order\n{before}Regards, Ana") < OPT_OUT_UNSURE
    assert score(labeller, f"Your order\n{before}\nTo unsubscribe click here") < OPT_OUT_SURE


def test_every_opt_out_passes_the_gate_of_long_mails() -> None:
    assert [one.text for one in own_phrases() if one.label == "yes" and not may_ask_out(one.text)] == []
    assert not may_ask_out("Where is my parcel?")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x00",
        "🎉🎉🎉",
        "مرحبا، أين طلبي؟",
        "Hello 你好 привет שלום, where is my order?",
        bytes(range(256)).decode("latin-1") * 20,
        "a" * 200_000,
        "stop " * 40_000,
        "\ud800",
        "> " * 5000,
        "where is my order? " * 550_000,
    ],
    ids="empty space null emoji right-to-left mixed binary one-word stop surrogate quotes ten-megabytes".split(),
)
def test_any_text_gets_labels_of_every_head(labeller: Labeller, text: str) -> None:
    heads = {label.head for label in labeller.classify([text])[0]}
    assert heads >= {"spam", "intent", "reply_intent", "urgency", "sentiment", "optout"}


def test_a_text_has_the_same_labels_alone_and_in_company(labeller: Labeller) -> None:
    texts = ["Where is my order?", "Stop writing to me. I mean it.", "Vielen Dank, das war sehr nett!", "ok"]
    together = labeller.classify(texts)
    for text, row in zip(texts, together, strict=True):
        alone = {label.name: label.score for label in labeller.classify([text])[0]}
        assert all(abs(alone[label.name] - label.score) <= 1e-5 for label in row)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my order? It should have arrived on Monday.", "en"),
        ("Wo bleibt meine Bestellung? Sie sollte am Montag kommen.", "de"),
        ("¿Dónde está mi pedido? Debía llegar el lunes.", "es"),
        ("我的订单在哪里？", "zh"),
        ("注文はどこですか？", "ja"),
        ("ok", None),
        ("48213", None),
    ],
)
def test_the_language_is_told_or_left_open(text: str, language: str | None) -> None:
    (found,) = Languages().label([text])
    assert (found.value if found else None) == language


def test_further_heads_still_tell_every_text_that_they_were_trained_on(labeller: Labeller) -> None:
    """They know these by heart: one missed means that words, vectors or weights are read otherwise than when they were learned."""
    for column, name in enumerate(("reply_intent", "urgency", "sentiment")):
        phrases = [one for one in labels.reply_phrases(column) if one.part != labels.BESIDE]
        answers = labeller.classify([one.text for one in phrases])
        best = [max((one for one in row if one.head == name), key=lambda one: one.score) for row in answers]
        missed = [one.text for one, found in zip(phrases, best, strict=True) if found.value != one.label]
        assert len(phrases) > 200 and missed == [], name


# -- intents of one's own


def test_eight_examples_make_an_intent_and_the_same_examples_make_the_same_head(labeller: Labeller) -> None:
    texts = tuple(
        f"my {thing} is under warranty, please repair it" for thing in "drill kettle lamp oven saw bike car fan".split()
    )
    lessons = Lessons("1", texts, ("warranty",) * len(texts))

    def asked(version: str) -> Lessons | None:
        return None if version == "1" else lessons

    first = Intents(labeller.encoder, labeller.weights.shipped, asked)
    second = Intents(labeller.encoder, labeller.weights.shipped, asked)
    vector = labeller.embed(["can you repair my phone, it is still under warranty"])
    assert first.label(vector) == second.label(vector)
    assert first.label(vector)[0][0].value == "warranty"
    near = first.nearest(vector, "warranty")
    assert near is not None and near.text in texts


def test_the_head_that_ships_is_the_one_that_its_examples_make_and_nobody_waits_for_it(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = labeller.weights.shipped()
    made = Intents(labeller.encoder, lambda: replace(shipped, fitted=None), lambda _version: None)
    vectors = labeller.embed([one.text for one in labels.reply_phrases(0)[:40]])
    expected, familiar = made.trained().head.probabilities(vectors), made.familiarity(vectors)

    def never(*_: object) -> None:
        raise AssertionError("it was fitted again")

    monkeypatch.setattr("models.heads.intents.calibrated", never)
    found = Intents(labeller.encoder, lambda: shipped, lambda _version: None)
    np.testing.assert_allclose(found.trained().head.probabilities(vectors), expected, atol=1e-4)
    np.testing.assert_allclose(found.familiarity(vectors), familiar, atol=1e-2)
    assert (found.names(), found.accuracy()) == (made.names(), made.accuracy())
    with pytest.raises(AssertionError, match="fitted again"):
        Intents(labeller.encoder, lambda: shipped, lambda _version: Lessons("1", ("a",), ("refund",))).trained()


def test_examples_without_their_head_make_it_themselves(copied: Path) -> None:
    """As folders of earlier releases do."""
    path, manifest = copied / "labels" / "labels.npz", copied / "labels" / "manifest.json"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if ".fit_" not in name}
    np.savez_compressed(path, **arrays)
    said = json.loads(manifest.read_text(encoding="utf-8"))
    del said["sums"]
    manifest.write_text(json.dumps(said | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}), encoding="utf-8")
    weights = Weights(copied)
    assert weights.faults() == {} and weights.shipped().fitted is None


def test_the_first_label_waits_for_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; from pathlib import Path; from models.bert import Encoder; from models.heads.labeller import Labeller;"
        "print(len(Labeller(Encoder(Path(sys.argv[1]))).classify(['where is my order?'])[0]));"
        "print(*sorted({one.partition('.')[0] for one in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert int(done[0]) > 8
    assert {"structlog", "rich", "prometheus_client", "sqlalchemy", "scipy", "torch"}.isdisjoint(done[1].split())


def test_a_head_says_how_sure_it_is_of_texts_it_did_not_see() -> None:
    chance = np.random.default_rng(3)
    centres = chance.normal(size=(4, 32))
    truth = np.repeat(np.arange(4), 30)
    vectors = (centres[truth] + 1.6 * chance.normal(size=(120, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # as an encoder's
    head, left_out = calibrated(vectors, truth, 4)
    accuracy = (left_out.argmax(axis=1) == truth).mean()
    exp = np.exp((left_out - left_out.max(axis=1, keepdims=True)) / head.temperature)
    confidence = (exp / exp.sum(axis=1, keepdims=True)).max(axis=1).mean()
    assert abs(confidence - accuracy) < 0.08


# -- the files


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in ("manifest.json", "labels/manifest.json", "labels/labels.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FOLDER / name, tmp_path / name)
    return tmp_path


def test_weights_that_are_damaged_or_of_another_encoder_are_refused_with_the_fix(copied: Path) -> None:
    assert len(Weights(copied).shipped().labels) > 300
    arrays = copied / "labels" / "labels.npz"
    good = arrays.read_bytes()
    arrays.write_bytes(good[:100_000])  # before the end of the first array
    with pytest.raises(ModelUnavailable, match=r"truncated or altered.*notifyr train"):
        Weights(copied).shipped()
    arrays.write_bytes(good)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = "0" * 64
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelUnavailable, match="another encoder"):
        Weights(copied).shipped()
    arrays.unlink()
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        Weights(Path(copied)).shipped()


def spoilt(copied: Path, **changes: object) -> Weights:
    """The weights with other arrays in their file, whose own checksum holds as after a careless rebuild."""
    with np.load(copied / "labels" / "labels.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez_compressed(copied / "labels" / "labels.npz", **arrays | changes)
    manifest = json.loads((copied / "labels" / "manifest.json").read_text(encoding="utf-8"))
    manifest["sha256"] = hashlib.sha256((copied / "labels" / "labels.npz").read_bytes()).hexdigest()
    (copied / "labels" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return Weights(copied)


def heads_of(weights: Weights) -> set[str]:
    return {head.name for head in weights.mixed()}


def test_two_heads_with_one_name_take_that_name_and_no_other(copied: Path) -> None:
    manifest = copied / "labels" / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    heads, _, rest = text.partition('"intent": {')
    assert heads.count('"urgency": {') == 1
    manifest.write_text(heads.replace('"urgency": {', '"sentiment": {') + '"intent": {' + rest, encoding="utf-8")
    weights = Weights(copied)
    assert heads_of(weights) == {"optout", "reply_intent"} and len(weights.shipped().labels) > 300
    faults = weights.faults()
    assert set(faults) == {"sentiment", "urgency"}
    assert "sentiment is there twice" in str(faults["sentiment"]) and "notifyr train" in str(faults["sentiment"])
    assert "does not name it" in str(faults["urgency"])


def test_a_wrong_checksum_of_one_head_takes_only_that_one(copied: Path) -> None:
    manifest = json.loads((copied / "labels" / "manifest.json").read_text(encoding="utf-8"))
    manifest["sums"]["urgency"] = "0" * 64
    (copied / "labels" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    weights = Weights(copied)
    assert heads_of(weights) == {"optout", "reply_intent", "sentiment"}
    assert isinstance(weights.faults()["urgency"], ModelUnavailable)
    assert "truncated or altered" in str(weights.faults()["urgency"])


def test_damage_inside_the_file_takes_only_the_head_that_it_hit(copied: Path) -> None:
    path = copied / "labels" / "labels.npz"
    with zipfile.ZipFile(path) as packed:
        places = {one.filename: (one.header_offset, one.compress_size) for one in packed.infolist()}
    start, size = places["sentiment.wording.npy"]
    content = bytearray(path.read_bytes())
    for place in range(start + 200, start + size // 2, 97):
        content[place] ^= 0xFF
    path.write_bytes(content)
    weights = Weights(copied)
    assert set(weights.faults()) == {"sentiment"} and heads_of(weights) == {"optout", "reply_intent", "urgency"}
    assert len(weights.shipped().labels) > 300


@pytest.mark.parametrize(
    ("changes", "head", "said"),
    [
        ({"urgency.bias": np.zeros(2, np.float32)}, "urgency", "truncated or altered"),
        ({"optout.meaning": np.full((384, 2), np.nan, np.float16)}, "optout", "truncated or altered"),
        ({"intent.truth": np.full(3, 99, np.int16)}, "intent", "truncated or altered"),
    ],
)
def test_other_arrays_under_the_name_of_a_head_are_refused(
    copied: Path, changes: dict[str, object], head: str, said: str
) -> None:
    assert {name: said in str(error) for name, error in spoilt(copied, **changes).faults().items()} == {head: True}


@pytest.mark.parametrize(
    ("changes", "head", "said"),
    [
        ({"urgency.bias": np.zeros(2, np.float32)}, "urgency", "its bias has the shape (2,) instead of (3,)"),
        ({"optout.meaning": np.full((384, 2), np.nan, np.float16)}, "optout", "no numbers"),
        ({"intent.truth": np.full(3, 99, np.int16)}, "intent", "do not fit each other"),
        ({"intent.fit_bias": np.zeros(3, np.float32)}, "intent", "its fit_bias is missing or has another shape"),
        ({"intent.truth": np.zeros(390, np.int16)}, "intent", "fitted to other labels"),
    ],
)
def test_heads_without_checksums_of_their_own_must_fit_their_encoder(
    copied: Path, changes: dict[str, object], head: str, said: str
) -> None:
    """As folders of earlier releases are."""
    spoilt(copied, **changes)
    manifest = json.loads((copied / "labels" / "manifest.json").read_text(encoding="utf-8"))
    del manifest["sums"]
    (copied / "labels" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert {name: said in str(error) for name, error in Weights(copied).faults().items()} == {head: True}


def test_a_head_that_was_good_stays_when_its_file_gets_worse_and_a_restored_one_comes_back(copied: Path) -> None:
    path, good = copied / "labels" / "manifest.json", (copied / "labels" / "manifest.json").read_bytes()
    manifest = json.loads(good)
    del manifest["heads"]["urgency"]
    path.write_text(json.dumps(manifest))
    weights = Weights(copied)
    assert heads_of(weights) == {"optout", "reply_intent", "sentiment"}
    path.write_text("{")
    assert heads_of(weights) == {"optout", "reply_intent", "sentiment"} and set(weights.faults()) == {"urgency"}
    path.write_bytes(good)
    assert weights.faults() == {} and len(weights.mixed()) == 4


def test_the_short_word_list_asks_for_the_same_sentences_as_the_whole_one() -> None:
    for one in labels.optout_phrases():
        names = {name for name, _ in optout_lexicon().found(folded(one.text[:1200]))}
        ends, of_what = names & {"remove", "cease", "consent"}, names & {"mail", "reach"}
        assert may_ask_out(one.text) == bool(names & {"out", "withdraw"} or (ends and of_what)), one.text


def test_a_wording_has_the_same_columns_the_second_time_and_with_words_too_long_to_remember() -> None:
    for text in (
        "",
        "Please stop e-mailing me!",
        "取消订阅 请不要再发邮件",
        "nein, danke " + "x" * 900,
        "ſtop ﬁne ½ don’t",
    ):
        first = columns(text, optout_lexicon())
        assert first.tolist() == sorted(set(first.tolist())) == columns(text, optout_lexicon()).tolist()
        assert folded(text) == folded(folded(text))
    assert set(columns("stop now").tolist()) < set(columns("stop now please").tolist())


def test_words_are_compared_without_accents_and_case() -> None:
    assert folded("Désabonnez-MOI\u200b  S'IL") == "desabonnez-moi s'il"
    assert folded("Wysyłka ıslak") == "wysylka islak"
    assert "desabonnement" in optout_lexicon().whole
    assert sentences("One. Two!\nThree。四") == ["One.", "Two!", "Three。", "四"]
    assert Encoder(FOLDER).dimensions == 384


# -- what `notifyr evaluate` says


def test_the_area_under_roc_counts_equal_scores_half() -> None:
    assert figures.area_under_roc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1.0
    assert figures.area_under_roc(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.5
    assert figures.area_under_roc(np.array([0.1, 0.9]), np.array([0.5])) == 0.5


def test_intents_are_measured_on_texts_left_out_and_outside(labeller: Labeller, tmp_path: Path) -> None:
    """A small set of our own in the shapes of BANKING77 and CLINC150; the real ones stay outside the project."""
    pairs = [(text, label) for label, text in labels._intent_pairs() if label != "other"]
    table = tmp_path / "train.csv"
    with table.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([("text", "category"), *pairs])
    found = figures.banking(labeller.encoder, table)
    assert found["classes"] == 14 and found["accuracy_cross_validated"] > 0.75
    assert found["accuracy_at_10_examples"] > 0.6
    outside = [text for label, text in labels._intent_pairs() if label == "other"]
    twin = (pairs[0][0].upper(), pairs[0][1])
    parts = {"train": pairs[::2], "val": [*pairs[1::2], twin], "oos_val": [(text, "oos") for text in outside]}
    (tmp_path / "clinc.json").write_text(json.dumps(parts), encoding="utf-8")
    measured = figures.clinc(labeller.encoder, tmp_path / "clinc.json")
    assert measured["out_of_scope_auroc"] > 0.8 and measured["accuracy"] > 0.7
    assert (measured["inside"], measured["twins"]) == (len(pairs[1::2]), 1), "what was learned is not asked"

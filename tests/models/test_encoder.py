"""The shipped encoder on its real weights: vectors and spam, odd input, batches, threads, and files that are not what they say."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assistant.errors import ConfigurationError, ModelUnavailable
from models.base import Classifier, Embedder
from models.bert import _CHARACTERS, FILES, TOLERANCE, Encoder, _clip, _passes
from models.catalog import load_classifier, load_embedder
from models.reading import ends, readable

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "weights" / "encoder"
MIXED = [
    "Where is my order 48213?",
    "WINNER!! You have won a 900 pound prize, call 09061701461 now to claim",
    "Please cancel my subscription at the end of the month. " * 12,
    "ok",
    "Make money fast!!! Click here http://win.example/now and earn $5000 a week from home, 100% guaranteed. " * 40,
    "Guten Tag, wann kommt mein Paket?",
]
ODD = {
    "empty": "",
    "spaces": " \n\t ",
    "emoji": "🎉🎉🎁🔥" * 50,
    "right to left": "أين طلبي؟ لم يصل بعد، من فضلك ساعدني",
    "mixed": "Hello 你好 привет שלום नमस्ते where is my order?",
    "binary": bytes(range(256)).decode("latin-1") * 20,
    "lone surrogate": "before \ud800 after",
    "one long word": "a" * 100_000,
    "ten megabytes": "buy now and save " * 600_000,
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(FOLDER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(FOLDER, tmp_path / "encoder"))


def rewrite(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


def reseal(folder: Path) -> None:
    rewrite(folder, files={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES})


def score(encoder: Encoder, text: str) -> float:
    return encoder.spam([text])[0].score


def test_it_keeps_its_protocol(encoder: Encoder) -> None:
    assert isinstance(encoder, Embedder)
    assert encoder.name.startswith("notifyr-encoder-")
    assert encoder.dimensions == 384


def test_the_manifest_and_the_file_have_no_head_that_nobody_reads() -> None:
    """Intents were there twice once: here, unread, and in labels/, where every process trains them."""
    assert set(json.loads((FOLDER / "manifest.json").read_text())["heads"]) == {"spam"}
    with np.load(FOLDER / "heads.npz", allow_pickle=False) as stored:
        assert {name.rpartition(".")[0] for name in stored.files} == {"spam.short"}


def test_nothing_is_read_before_it_is_needed(folder: Path) -> None:
    lazy = Encoder(folder)
    assert not lazy.ready
    lazy.load()
    assert lazy.ready


def test_plain_spam_is_spam_and_a_question_is_not(encoder: Encoder) -> None:
    assert score(encoder, MIXED[1]) > 0.9
    assert score(encoder, MIXED[4]) > 0.9
    assert score(encoder, MIXED[0]) < 0.1


@pytest.mark.parametrize("name", ODD)
def test_odd_text_is_answered_all_the_same(encoder: Encoder, name: str) -> None:
    assert 0 <= score(encoder, ODD[name]) <= 1
    assert np.isfinite(encoder.embed([ODD[name]])).all()


def test_no_text_gives_no_vector_and_no_verdict(encoder: Encoder) -> None:
    assert encoder.spam([]) == []
    assert encoder.embed([]).shape == (0, 384)


def test_a_text_alone_is_scored_as_in_a_batch(encoder: Encoder) -> None:
    for text, batch in zip(MIXED, encoder.spam(MIXED), strict=True):
        assert batch.score == pytest.approx(score(encoder, text), abs=TOLERANCE)


def test_many_texts_are_judged_as_each_alone_on_one_and_on_two_threads(encoder: Encoder) -> None:
    """From sixteen on their words are read while the network works on what others leave open."""
    texts = [*MIXED, *ODD.values()] * 2
    clues = [("link-mismatch",) if place % 3 == 0 else () for place in range(len(texts))]
    single = Encoder(FOLDER, threads=1)
    together, apart = encoder.spam(texts, clues), single.spam(texts, clues)
    assert len(texts) >= 16 and {one.stage for one in together} == {"words", "encoder"}
    for place, (text, of) in enumerate(zip(texts, clues, strict=True)):
        (alone,) = encoder.spam([text], [of])
        for found in (together[place], apart[place]):
            assert (found.stage, found.reasons) == (alone.stage, alone.reasons)
            assert found.score == pytest.approx(alone.score, abs=TOLERANCE)


def test_texts_of_one_length_share_a_pass_and_keep_their_vectors(encoder: Encoder) -> None:
    texts = [
        f"My {thing} came {how} today" for thing in ("bike", "book", "lamp", "shoes") for how in ("late", "broken")
    ]
    texts += MIXED[4:5] * 3 + ["x " * 400, "WIN $$$ " * 100]
    passes = _passes(list(dict.fromkeys(map(tuple, encoder._ids(texts)))), 2)
    assert any(len(one) > 3 for one in passes)
    assert all(len({len(ids) for ids in one}) == 1 for one in passes)
    assert max(sum(map(len, one)) for one in passes) <= 256
    for text, together in zip(texts, encoder.embed(texts), strict=True):
        (alone,) = encoder.embed([text])
        assert np.allclose(alone, together, atol=TOLERANCE), text[:30]


def test_few_texts_are_spread_over_all_threads() -> None:
    two = [(1, 2, 3), (1, 4, 3)]
    assert _passes(two, 2) == [[two[0]], [two[1]]], "in one pass the other thread would have nothing to do"
    assert _passes(two, 1) == [two]
    assert sorted(len(one) for one in _passes([(1, place, 3) for place in range(9)], 4)) == [1, 2, 2, 2, 2]


def test_the_same_texts_give_the_same_bits_on_one_and_two_threads(encoder: Encoder) -> None:
    first, again = encoder.embed(MIXED), encoder.embed(MIXED)
    single = Encoder(FOLDER, threads=1).embed(MIXED)
    assert np.array_equal(first, again)
    assert np.array_equal(first, single)


def test_a_long_text_read_from_its_ends_has_the_tokens_of_the_whole_one(encoder: Encoder) -> None:
    encoder.load()
    long = [
        *(text for text in ODD.values() if len(text) > 1000),
        "x" * 3000 + " y" * 3000,
        " " * 5000 + "z" * 5000,
        "ΣΑΣ " * 2000,
    ]
    for text in [*long, *(text * 60 for text in MIXED)]:
        (found,) = encoder._ids([text])
        whole = encoder._tokenizer.encode(ends(readable(text), *_CHARACTERS)).ids
        assert found == _clip(whole, int(encoder._manifest["max_tokens"]))


# -- long texts in several stretches

LONG = "The heating in room 12 is cold again, please send somebody who can look at it before Friday. "
MIDDLE = "My invoice 4711 is wrong: you charged me twice, and I want the money back at once. " * 5


@pytest.fixture(scope="module")
def wide() -> Encoder:
    return Encoder(FOLDER, tokens=256)


def test_a_short_text_has_the_same_bits_however_much_may_be_read(encoder: Encoder, wide: Encoder) -> None:
    short = [text for text in MIXED if len(text) < 200]
    assert np.array_equal(encoder.embed(short), wide.embed(short))
    assert (encoder.tokens, wide.tokens) == (128, 256)
    assert wide.name == f"{encoder.name}-256", "an index of the other vectors would be taken for its own"


def test_twice_as_many_tokens_are_read_in_stretches_of_like_length(encoder: Encoder, wide: Encoder) -> None:
    wide.load()
    for times in (4, 8, 9, 12, 60):
        (ids,) = wide._ids([LONG * times])
        parts = wide._stretches(tuple(ids))
        begin, *inner, end = ids
        assert [one for part in parts for one in part[1:-1]] == inner
        assert all(len(part) <= 128 and (part[0], part[-1]) == (begin, end) for part in parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert len(parts) == min(2, -(-(len(inner) + 2) // 128))
    assert sum(map(len, parts)) == 256


def test_what_stands_in_the_middle_of_a_long_text_is_seen(encoder: Encoder, wide: Encoder) -> None:
    text = LONG * 5 + MIDDLE + LONG * 12
    (topic,) = encoder.embed([MIDDLE])
    seen, unseen = (float(one.embed([text])[0] @ topic) for one in (wide, encoder))
    assert seen > unseen + 0.05


def test_stretches_are_the_same_alone_in_a_batch_and_on_one_thread(wide: Encoder) -> None:
    texts = [*MIXED, *(LONG * times + f"{times}" for times in range(1, 14)), MIDDLE * 3]
    single = Encoder(FOLDER, threads=1, tokens=256)
    together, apart = wide.embed(texts), single.embed(texts)
    assert np.array_equal(together, apart)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)
    for text, row in zip(texts, together, strict=True):
        assert np.allclose(wide.embed([text])[0], row, atol=TOLERANCE)
    for text, verdict in zip(texts, wide.spam(texts), strict=True):  # enough for words to be read beside the network
        assert verdict.score == pytest.approx(score(wide, text), abs=TOLERANCE)


def test_order_in_the_batch_is_kept(encoder: Encoder) -> None:
    forward, backward = encoder.embed(MIXED), encoder.embed(MIXED[::-1])[::-1]
    assert (np.sum(forward * backward, axis=1) > 0.98).all()


def test_vectors_have_length_one_and_put_paraphrases_together(encoder: Encoder) -> None:
    a, b, c = encoder.embed(["How do I get a refund?", "I want my money back", "The cat sleeps on the roof"])
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-3)
    assert a @ b > a @ c + 0.2


def test_the_end_of_a_long_text_is_read_too(encoder: Encoder) -> None:
    padding = "The meeting notes are attached below for the record. " * 400
    assert score(encoder, padding + MIXED[4][:400]) > score(encoder, padding) + 0.05


def test_evidence_names_the_words_that_weighed(encoder: Encoder) -> None:
    found = dict(encoder.evidence(MIXED[1]))
    assert {"claim", "won", "prize", "winner", "call"} & set(found)
    assert max(found.values()) > 0


def test_many_threads_load_it_once_and_agree(folder: Path) -> None:
    shared = Encoder(folder)
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(score(shared, MIXED[1]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


# -- files that are not what they say


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "heads.npz", "manifest.json"])
def test_a_missing_file_is_named_with_the_way_to_mend_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelUnavailable, match=r"(?s)(manifest|missing).*notifyr train"):
        Encoder(folder).load()


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "heads.npz"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelUnavailable, match=f"{name} is not the file its manifest names"):
        Encoder(folder).load()


def test_one_changed_byte_is_refused(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelUnavailable, match="altered"):
        Encoder(folder).load()


@pytest.mark.parametrize("changes", [{"architecture": "t5"}, {"format": 1}, {"files": {}}, {"heads": {}}])
def test_another_architecture_or_format_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    rewrite(folder, **changes)
    with pytest.raises(ModelUnavailable, match="notifyr train"):
        Encoder(folder).load()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1, "a": 2}', "\ufeff", "null"])
def test_a_broken_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ModelUnavailable, match="notifyr train"):
        Encoder(folder).load()


def test_two_heads_with_one_name_are_refused(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"heads": {', '"heads": {"spam": {}, ', 1))
    with pytest.raises(ModelUnavailable, match="spam is there twice"):
        Encoder(folder).load()


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "heads.npz"])
def test_a_well_sealed_file_of_another_kind_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"GIF89a" * 100)
    reseal(folder)
    with pytest.raises(ModelUnavailable, match="no encoder of ours"):
        Encoder(folder).load()


def test_a_pickle_among_the_heads_is_never_read(folder: Path) -> None:
    pickled = np.array([{"a": 1}], dtype=object)
    np.savez(folder / "heads.npz", **{f"spam.short.{name}": pickled for name in ("words", "support", "duals")})
    reseal(folder)
    with pytest.raises(ModelUnavailable, match=r"no encoder of ours .*Object arrays cannot be loaded"):
        Encoder(folder).load()


# -- names


def test_one_encoder_serves_labels_and_vectors() -> None:
    spec = "onnx:deploy/weights/encoder"
    classifier = load_classifier(spec, threads=2)
    assert isinstance(classifier, Classifier) and isinstance(classifier, Embedder)
    assert classifier.encoder is load_embedder(spec, threads=2)
    assert load_classifier("off", threads=2) is None


@pytest.mark.parametrize("spec", ["", "onnx:", "pickle:x", "deploy/weights/encoder"])
def test_an_unknown_name_is_a_configuration_error(spec: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFYR_ENCODER"):
        load_classifier(spec, threads=2)

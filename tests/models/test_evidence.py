"""The words that an agent is shown for a label: those that made it, as the text writes them, on the weights that ship."""

from __future__ import annotations

import numpy as np
import pytest

from assistant.settings import ROOT
from models.catalog import load_classifier
from models.heads import evidence
from models.heads.evidence import Evidence
from models.heads.labeller import Labeller
from models.heads.mixed import Mixed
from models.heads.wording import columns, optout_lexicon, owners

COMPLAINT = "I am very disappointed, the table arrived broken again. Fix this immediately, it is urgent!"


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    loaded = load_classifier(f"onnx:{ROOT / 'deploy/weights/encoder'}", threads=1)
    assert loaded is not None
    loaded.load()
    return loaded


@pytest.fixture(scope="module")
def heads(labeller: Labeller) -> dict[str, Mixed]:
    return {head.name: head for head in labeller.mixed()}


def weighed(labeller: Labeller, *windows: str, **claims: str) -> dict[str, list[str]]:
    labels = labeller.classify(windows[:1])[0]
    _, found = labeller.because(windows, labels, claims, spam=False)
    return {head: [word for word, _ in words] for head, words in found.items()}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Please unsubscribe me", "unsubscribe"),
        ("STOP", "STOP"),
        ("Leave me alone please", "Leave me alone"),
        ("take me off your mailing list, I want no more mails", "no more"),
        ("Bitte nehmen Sie mich aus dem Verteiler.", "Verteiler"),
        ("Por favor, no me manden más mensajes.", "no me manden más"),
        ("もうメッセージを送らないでください", "送らないで"),
    ],
)
def test_an_opt_out_names_the_words_that_made_it(labeller: Labeller, text: str, word: str) -> None:
    assert word in weighed(labeller, text, optout="yes")["optout"]


def test_of_a_long_mail_the_sentence_that_asks_out_is_named_and_no_other(labeller: Labeller) -> None:
    mail = "The lamp came on Monday, thank you. Please stop the discussion here. Kindly unsubscribe me from all mails. Best, Ana"
    first = weighed(labeller, mail, optout="yes")["optout"]
    assert first[0] == "unsubscribe" and not {"lamp", "Monday", "discussion"} & set(first)
    last = weighed(labeller, "Where is my order? It is late. " * 30, mail, optout="yes")["optout"]
    assert last == first, "a later window is read as well"


def test_kind_urgency_and_sentiment_name_their_words(labeller: Labeller) -> None:
    found = weighed(labeller, COMPLAINT, reply_intent="complaint", urgency="high", sentiment="negative")
    assert "broken" in found["reply_intent"] and "immediately" in found["urgency"]
    assert "disappointed" in found["sentiment"] and "optout" not in found
    assert weighed(labeller, "When will it arrive?", reply_intent="question")["reply_intent"][0] == "?"


def test_without_the_strongest_word_the_label_is_less_probable(labeller: Labeller, heads: dict[str, Mixed]) -> None:
    for head, label, text in (("optout", "yes", "Please unsubscribe me"), ("sentiment", "negative", COMPLAINT)):
        strongest = Evidence.of(text).words(heads[head], label)[0][0]
        both = [text, text.replace(strongest, "")]
        table = heads[head].scores([columns(one, optout_lexicon()) for one in both], np.zeros((2, labeller.dimensions)))
        odds = table[:, heads[head].labels.index(label)] - table.mean(axis=1)
        assert odds[0] > odds[1], strongest


def test_weights_add_up_to_what_the_wording_says(heads: dict[str, Mixed]) -> None:
    """But for concepts that are missing, which are no word of the text."""
    text, head = "Please unsubscribe me from this newsletter", heads["optout"]
    whose = owners(text, optout_lexicon())
    every = columns(text, optout_lexicon()).tolist()
    assert set(whose) <= set(every)
    absent = len(set(every) - set(whose))
    assert absent <= len(optout_lexicon().names)
    read = Evidence.of(text)
    yes, no = head.labels.index("yes"), head.labels.index("no")
    gains = (head.wording[list(whose), yes] - head.wording[list(whose), no]).sum()
    both = (read.words(head, "yes", limit=99), read.words(head, "no", limit=99))
    named = sum(weight for _, weight in both[0]) - sum(weight for _, weight in both[1])
    assert named == pytest.approx(gains / np.sqrt(len(every)) / head.temperature, rel=0.25), "the weakest are left out"


def test_a_few_words_are_named_the_strongest_first_and_nothing_of_nothing(heads: dict[str, Mixed]) -> None:
    found = Evidence.of(COMPLAINT).words(heads["sentiment"], "negative")
    assert 1 <= len(found) <= 4
    assert [weight for _, weight in found] == sorted((weight for _, weight in found), reverse=True)
    assert all(weight > 0 for _, weight in found)
    for text in ("", " \n", "😀😀", "\u0301\u0301"):
        assert Evidence.of(text).words(heads["sentiment"], "negative") == []
    (word, _) = Evidence.of("unsubscribe" * 100).words(heads["optout"], "yes")[0]
    assert len(word) <= 60, "a word without an end is cut"


def test_labelling_in_bulk_asks_for_no_words_and_a_mail_that_claims_nothing_neither(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nobody asked why")

    monkeypatch.setattr(evidence, "owners", refuse)
    labels = labeller.classify([COMPLAINT, "Please unsubscribe me"])[0]
    assert labeller.because([COMPLAINT], labels, {}, spam=False) == ([], {})
    assert labeller.because([COMPLAINT], labels, {"language": "en"}, spam=False) == ([], {})

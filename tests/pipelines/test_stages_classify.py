"""Labels by the project's own encoder on the project's own weights; thresholds and windows as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from assistant.settings import ROOT
from assistant.values import DecisionKind, Label, TurnMessage
from models.base import Classifier
from models.catalog import load_classifier
from models.heads.labeller import Labeller
from models.heads.wording import columns
from models.reading import readable
from pipelines.stages.classify import WINDOW, Classify, windows
from pipelines.stages.run import failed_stages, run
from tests.pipelines.turns import turn


@pytest.fixture(scope="module")
def encoder() -> Labeller:
    loaded = load_classifier(f"onnx:{ROOT / 'deploy/weights/encoder'}", threads=2)
    assert loaded is not None
    return loaded


@dataclass
class Scripted:
    """Gives the scores that a table asks for, and keeps what it was shown."""

    spam: float = 0.0
    intent: Label = field(default_factory=lambda: Label("intent:refund", 0.9))
    seen: list[str] = field(default_factory=list)
    name: str = "scripted-1"

    def classify(self, texts: Sequence[str]) -> list[list[Label]]:
        self.seen += texts
        return [[Label("spam:spam", self.spam), Label("spam:ham", 1 - self.spam), self.intent] for _ in texts]


def stage(model: Classifier | None, **values: bool) -> Classify:
    return Classify(model=model, spam_threshold=0.9, uncertain_band=0.5, intent_threshold=0.5, **values)


@pytest.mark.parametrize(
    ("spam", "kind", "outcome"),
    [
        (0.0, None, "ok"),
        (0.49, None, "ok"),
        (0.5, DecisionKind.HANDOFF, "handoff"),
        (0.89, DecisionKind.HANDOFF, "handoff"),
        (0.9, DecisionKind.STOP, "stop"),
        (1.0, DecisionKind.STOP, "stop"),
    ],
)
def test_the_thresholds_of_the_settings_decide(spam: float, kind: DecisionKind | None, outcome: str) -> None:
    done = stage(Scripted(spam))(turn())
    assert (done.decision.kind if done.decision else None) == kind
    assert done.trace[-1].outcome == outcome
    assert done.trace[-1].score == spam


def test_somebody_we_have_answered_is_never_hidden() -> None:
    history = (TurnMessage("1", "outbound", "Thank you for your order"),)
    done = stage(Scripted(0.99))(turn(history=history))
    assert done.decision is not None
    assert done.decision.kind == DecisionKind.HANDOFF


def test_an_unsure_intent_is_not_claimed() -> None:
    sure = stage(Scripted())(turn())
    unsure = stage(Scripted(intent=Label("intent:refund", 0.49)))(turn())
    assert (sure.trace[-1].detail["intent"], unsure.trace[-1].detail["intent"]) == ("refund", "")


def test_a_paraphrased_opt_out_goes_to_a_person() -> None:
    done = stage(Scripted(intent=Label("intent:opt_out", 0.97)))(turn("no more of these letters"))
    assert done.decision is not None
    assert done.decision.kind == DecisionKind.HANDOFF


def test_without_an_encoder_the_stage_fails_and_switched_off_it_is_skipped() -> None:
    assert failed_stages(run(turn(), [stage(None)])) == ("classify",)
    off = run(turn(), [stage(None, switched_off=True)])
    assert failed_stages(off) == ()
    assert off.trace[0].outcome == "skipped"


def test_only_the_subject_and_the_new_text_are_shown_to_the_model() -> None:
    model = Scripted()
    asked = turn("yes please", subject="Re: lamp")
    quoted = f"yes please\n> buy viagra\n> {asked.message.text}"
    stage(model)(replace(asked, message=replace(asked.message, text=quoted)))
    assert model.seen == ["Re: lamp\nyes please"]


def test_a_long_text_is_read_at_its_start_its_middle_and_its_end() -> None:
    text = "a" * WINDOW + "b" * (3 * WINDOW) + "buy now"
    shown = windows("Subject", text)
    assert len(shown) == 3
    assert shown[0].startswith("Subject\na")
    assert set(shown[1]) == {"b"}
    assert shown[2].endswith("buy now")
    assert all(len(part) <= WINDOW + 301 for part in shown)


def test_the_wording_of_a_window_is_read_to_its_end_and_the_encoder_reads_a_part_of_it(encoder: Labeller) -> None:
    """What the comment at `WINDOW` says."""
    filler = ("the table is of oak and stands in the hall " * 60)[:WINDOW]
    assert columns(filler[:-9] + " zebrafish"[:9]).tolist() != columns(filler).tolist()
    assert columns(filler + "zebrafish").tolist() == columns(filler).tolist()
    encoder.load()
    (ids,) = encoder.encoder._ids([filler])
    whole = encoder.encoder._tokenizer.encode(filler).ids
    assert len(ids) == 128 < len(whole) and ids[:96] == whole[:96] and ids[96:] == whole[-32:]


def test_invisible_characters_and_lookalikes_do_not_hide_words() -> None:
    assert readable("f\u200br\u200bee \uff56iagra \u2460") == "free viagra 1"
    assert readable("Fr\u0435\u0435 v\u0456\u0430gr\u0430") == "Free viagra"


def test_the_reason_that_letters_are_disguised_is_shown_on_every_channel(encoder: Labeller) -> None:
    told = "mixes alphabets inside a word"
    text = "WINNER!! Cl\u0430im your fr\u0435\u0435 v\u0456\u0430gr\u0430 pr\u0456ze now, call 09061701461"
    for channel in ("sms", "email"):
        given = turn(text)
        done = stage(encoder)(replace(given, message=replace(given.message, channel=channel)))
        detail = done.trace[-1].detail
        assert detail["spam"] in ("spam", "uncertain") and told in detail["because"], channel
        assert told in detail["spam_because"]["reasons"]


def test_an_empty_mail_is_classified_all_the_same(encoder: Classifier) -> None:
    assert stage(encoder)(turn("")).label("spam") is not None


@pytest.mark.parametrize(
    ("text", "spam"),
    [
        ("Hello, where is my parcel? I ordered two lamps on Thursday, order 48213. Thanks, Ana", False),
        ("I forgot my password and cannot log in any more. How do I reset it?", False),
        ("You have WON $4,500,000.00! Send your bank details and a fee of $250 to claim your prize money now!!!", True),
        ("Cheap viagra and cialis, no prescription needed, click here to order now, money back guarantee", True),
    ],
)
def test_the_real_encoder_tells_customers_from_spam(encoder: Classifier, text: str, spam: bool) -> None:
    done = stage(encoder)(turn(text))
    assert (done.decision is not None) is spam  # stopped, or shown to a person


def test_padding_in_front_does_not_hide_spam(encoder: Classifier) -> None:
    padding = "Thank you for your help with my lamp. " * 200
    spam = (
        "Cheap viagra and cialis, no prescription needed, click here to order now http://pills.example money back!!! "
        * 8
    )
    done = stage(encoder)(turn(padding + spam))
    assert done.decision is not None


def test_the_same_mail_gets_the_same_labels_every_time(encoder: Classifier) -> None:
    asked = turn("Where is my refund? It has been two weeks.", subject="Refund")
    assert stage(encoder)(asked).labels == stage(encoder)(asked).labels

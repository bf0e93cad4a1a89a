"""A text as the models read it: disguised letters are read as what they pose as, real words of other alphabets are left alone."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.settings import ROOT
from models import reading
from models.bert import TOLERANCE, Encoder
from models.clues import of_text, reasons
from models.features import hashed, tokens
from models.heads.labeller import Labeller
from models.heads.wording import folded
from models.reading import readable, seen, unmasked

FOLDER = ROOT / "deploy" / "weights" / "encoder"
SPAM = (
    "WINNER!! Claim your free viagra prize now, call 09061701461",
    "Cheap pills online\nBuy cheap viagra and pills here, order now, free money guaranteed. Click http://203.0.113.9/now\nNo cost",
)
POSING = str.maketrans(
    "aeopcxyis", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456\u0455"
)  # Cyrillic, where UTS 39 names them


def masked(text: str) -> str:
    """All but the first letter of each word in letters that look the same, so that every word still has a Latin one."""
    return "".join(
        one if place == 0 or text[place - 1] in " \n" else one.translate(POSING) for place, one in enumerate(text)
    )


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Fr\u0435\u0435 v\u0456\u0430gr\u0430", "Free viagra"),
        ("p\u0430ypal", "paypal"),
        ("V\u0406\u0410GRA", "VIAGRA"),
        ("BA\u039dK \u0442r\u0430nsf\u0435r", "BANK transfer"),
        ("fr\u0451\u0451", "free"),
        ("w\u03bfn by y\u03bfu", "won by you"),
        ("a\u0440\u0440\u0435al to you all", "appeal to you all"),
        ("fr\u200b\u0435\u200be", "free"),
        ("Get \u0441\u0430\u0455\u0435 and a \u0440\u0440\u0435 for x = \u03bf", "Get case and a ppe for x = \u03bf"),
        ("Your \u03a1\u0391\u03a5 is late", "Your PAY is late"),
    ],
)
def test_letters_that_pose_as_latin_ones_are_read_as_these(text: str, plain: str) -> None:
    assert readable(text) == plain
    assert tokens(text)[-1] == tokens(plain)[-1] and folded(text) == folded(plain)


@pytest.mark.parametrize(
    "text",
    [
        "Здравствуйте! Где мой заказ? Он должен был прийти в среду, я жду уже пять дней.",
        "Сор, рос, осе: слова из одних похожих букв",
        "Καλημέρα, πού είναι η παραγγελία μου; Περιμένω εδώ και πέντε ημέρες.",
        "Пришлите SMSку с PDFом на iPhone 15, CRM-система и Wi-Fi не работают, спасибо",
        "Cкажите, где мой зaказ? Mосква, улица Ленина",
        "Ο υπολογιστής μου έχει Windows 11, IFNγ και TNFα",
        "The order for Мария came to Αθήνα with 5 μm and 3 kΩ",
        "Ձեր պատվերը ճանապարհին է",
        "Wo bleibt die Lieferung? Ça va, señor, łódź, İstanbul",
        "أين طلبي؟ 注文はどこですか 주문",
        "My name is \u0420\u043e\u0441\u0430 \u0411\u0435\u043b\u043e\u0432\u0430, I wait for my order",
        "\u0420\u043e\u0441\u0430, \u0441\u043e\u0440",
    ],
)
def test_real_words_of_other_alphabets_stay_as_they_are(text: str) -> None:
    assert unmasked(text) == text
    assert readable(text) == unicodedata.normalize("NFKC", text)


@given(st.text(alphabet="abcVI \u0430\u0435\u0406\u043e\u0440\u03bf\u03b1\u0436\u043a\u200b\u0301.", max_size=40))
def test_what_was_read_once_reads_the_same_again(text: str) -> None:
    once = readable(text)
    assert readable(once) == once
    assert hashed(text, short=True).tolist() == hashed(once, short=True).tolist() or "\u200b" in text


@pytest.mark.parametrize(
    "text", ["Get \u0441\u0430\u0455\u0435 now, call us", "this is ok\n\u0441\u0430\u0455\u0435 now"]
)
def test_whole_words_in_disguise_are_told(text: str) -> None:
    assert of_text(text) == ("posing",) and reasons(of_text(text)) == ["has words in letters that only look Latin"]
    assert (
        of_text(readable(text)) == () == of_text("Call \u0420\u043e\u0441\u0430 \u0411\u0435\u043b\u043e\u0432\u0430")
    )


@pytest.mark.parametrize(
    "text",
    [
        "\uff26\uff32\uff25\uff25 \U0001d426\U0001d428\U0001d427\U0001d41e\U0001d432\u2026 call \u2460\u2461 now\u00a0\u2122 to win \ufb01ve prizes",
        "\u200b" * 30_000 + "Call now to win a prize " + "\u2060" * 30_000 + "or unsubscribe",
        "Get \u0441\u0430\u0455\u0435 now, p\u0430y nothing",
    ],
)
def test_every_head_reads_a_text_as_triage_hands_it_in(text: str) -> None:
    """Triage reads a text first (`windows`); who classifies one alone, trains or evaluates hands it in as it is."""
    labeller = Labeller(Encoder(FOLDER))
    one, other = labeller.classify([text])[0], labeller.classify([readable(text)])[0]
    assert [label.name for label in one] == [label.name for label in other]
    assert [label.score for label in one] == pytest.approx([label.score for label in other], abs=TOLERANCE)
    assert tokens(text) == tokens(readable(text))


def test_no_character_without_a_look_of_its_own_is_left() -> None:
    unseen = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    assert seen("a" + "".join(unseen) + "\u3164b") == "ab"


def test_each_of_the_letters_is_of_another_alphabet_and_has_the_case_of_what_it_looks_like() -> None:
    kept = json.loads(Path(reading.__file__).with_name("lookalikes.json").read_text(encoding="utf-8"))
    every = [(one, latin) for latin, others in kept["letters"].items() for one in others]
    assert len({one for one, _ in every}) == len(every) > 300 and "13.0.0" in kept["source"] and kept["licence"]
    for one, latin in every:
        script = unicodedata.name(one).partition(" ")[0]
        assert script in {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"} and latin.isascii()
        if script in {"CYRILLIC", "GREEK"}:
            assert one.isupper() == latin.isupper() and unicodedata.normalize("NFKC", one) == one, (one, latin)


@pytest.mark.parametrize("plain", SPAM)
def test_spam_in_disguised_letters_is_as_probable_as_in_plain_ones(plain: str) -> None:
    encoder = Encoder(FOLDER)
    disguised = masked(plain)
    assert disguised != plain and readable(disguised) == readable(plain)
    one, other = encoder.spam([plain])[0], encoder.spam([disguised])[0]
    assert one.score > 0.9 and other.score == pytest.approx(one.score, abs=0.01)
    assert (encoder.embed([plain]) * encoder.embed([disguised])).sum() > 0.999


@pytest.mark.parametrize(
    "unit", ["a\u0430", "\u0430", "a\u0430 ", "\u043f\u0440\u0438\u0432\u0435\u0442 ", "e\u0301", "\u200b", "AB\u0430 "]
)
@pytest.mark.timeout(300)
def test_reading_takes_time_that_grows_with_the_text(unit: str) -> None:
    def spent(size: int) -> float:
        text = "a\u0430" + (unit * size)[:size]
        began = time.thread_time()
        readable(text)
        return time.thread_time() - began

    whole = min(spent(100_000) for _ in range(3))
    assert whole < 0.1 or whole < 8 * min(spent(25_000) for _ in range(3))

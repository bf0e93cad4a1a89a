"""Preparing texts, refusing leaks, and the figures of a report: the arithmetic that every claim rests on."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

from assistant.errors import InvalidInput
from assistant.values import Address, InboundMessage
from models.training.corpora import Sample, clean, load, mail_samples, refuse_leaks, sms_samples
from models.training.report import average_precision, calibration_error, recall_at, spam_report


def sample(text: str, part: str, *, group: str = "g", label: str = "ham", source: str = "mail") -> Sample:
    return Sample(text, label, part, source, group)


def as_mail(raw: bytes) -> tuple[InboundMessage, str, tuple[str, ...]]:
    text = raw.decode()
    return InboundMessage("email", "<1@example.org>", Address("email", "a@example.org"), (), "", text), text, ()


# -- preparing


def test_a_group_on_both_sides_is_refused_with_the_pair_shown() -> None:
    with pytest.raises(InvalidInput, match=r"group is in train and in test: 'first' and 'second'"):
        refuse_leaks([sample("first", "train"), sample("second", "test")])


def test_an_equal_text_on_both_sides_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"text is in test and in recent"):
        refuse_leaks([sample("same", "test", group="a"), sample("same", "recent", group="b")])


def test_train_and_its_newest_slice_may_share_a_group() -> None:
    refuse_leaks([sample("a", "train"), sample("b", "recent"), sample("c", "test", group="other")])


CAMPAIGN = (
    "Dear friend, our new pills take twenty pounds off you in two weeks, order your free bottle before Friday noon"
)
_CHANCE = np.random.default_rng(3)
WORDS = np.array([f"{a}{b}" for a in "bdfgklmnprst" for b in ("aro", "ile", "umo", "eta", "ova", "ine", "asu", "ork")])
NEWS = [" ".join(row) for row in WORDS[_CHANCE.integers(0, len(WORDS), size=(10_000, 150))]]
"""Texts that have no three words in a row in common, but by chance."""


def test_a_text_that_is_nearly_the_same_on_both_sides_is_refused_with_the_pair_shown() -> None:
    greeted = CAMPAIGN.replace("Dear friend", "Dear Ms Okafor").replace("twenty", "20")
    samples = [sample(CAMPAIGN, "recent", group="a"), sample(greeted, "test", group="b")]
    with pytest.raises(
        InvalidInput, match=r"1 of 1 tested texts .* 'Dear Ms Okafor, .*' in test and 'Dear friend, .*' in recent"
    ):
        refuse_leaks(samples)
    with pytest.raises(InvalidInput, match="nearly the same"):
        refuse_leaks(samples[::-1])
    assert refuse_leaks([sample(CAMPAIGN, "recent", group="a"), sample(greeted, "train", group="b")]) == []
    assert refuse_leaks([sample(CAMPAIGN, "train", group="a"), sample(NEWS[0], "test", group="b")]) == []


def test_short_texts_are_nearly_the_same_only_where_they_differ_in_numbers_and_signs_alone() -> None:
    with pytest.raises(InvalidInput, match="nearly the same"):
        refuse_leaks([sample("Order 12: shipped!", "train", group="a"), sample("order 7 shipped", "test", group="b")])
    assert refuse_leaks([sample("order shipped", "train", group="a"), sample("order lost", "test", group="b")]) == []


def test_a_prepared_file_whose_parts_are_nearly_the_same_is_refused(tmp_path: Path) -> None:
    rows = [
        {"text": f"{CAMPAIGN}{end}", "label": "spam", "part": part, "source": "s", "group": part}
        for part, end in (("train", ""), ("test", " or call us"))
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InvalidInput, match="tested texts are nearly the same as one that is learned"):
        load(tmp_path / "s.jsonl")


def test_a_pair_in_a_hundred_tested_mails_is_given_back_to_be_told_and_a_second_one_is_refused() -> None:
    tested = [sample(text, "test", group=f"t{n}") for n, text in enumerate(NEWS[:99])]
    pair = sample(CAMPAIGN, "train", group="a"), sample(f"{CAMPAIGN} indeed", "test", group="b")
    samples = [*tested, *pair]
    assert refuse_leaks(samples) == [pair]
    more = [sample(NEWS[99], "train", group="c"), sample(f"{NEWS[99]} now", "test", group="d")]
    with pytest.raises(InvalidInput, match="2 of 101 tested texts"):
        refuse_leaks([*samples, *more])


def test_text_messages_that_are_nearly_the_same_are_given_back_whatever_their_share() -> None:
    pair = sample(CAMPAIGN, "train", group="a", source="sms"), sample(f"{CAMPAIGN} x", "test", group="b", source="sms")
    assert refuse_leaks(pair) == [pair]


def test_the_search_for_near_duplicates_grows_with_the_mails_and_not_with_their_pairs() -> None:
    def looked(count: int) -> float:
        texts = NEWS[:count]
        texts[count - 1] = texts[10].replace("a", "A") + " with another end"
        sides = ["test" if 4 * n > 3 * count else "train" for n in range(count)]
        began = time.process_time()
        found = refuse_leaks([sample(text, sides[n], group=f"{n}") for n, text in enumerate(texts)])
        took = time.process_time() - began
        assert [(one.group, other.group) for one, other in found] == [("10", f"{count - 1}")]
        return took

    assert looked(10_000) < 30 * looked(1_000), "ten times the mails, a hundred times the pairs"


def test_prepared_lines_are_read_and_a_bad_one_is_named(tmp_path: Path) -> None:
    good = json.dumps({"text": "x", "label": "ham", "part": "train", "source": "s", "group": "1"})
    (tmp_path / "s.jsonl").write_text(good + "\n")
    assert load(tmp_path / "s.jsonl")[0].text == "x"
    (tmp_path / "s.jsonl").write_text(good + "\n{}\n")
    with pytest.raises(InvalidInput, match=r"s\.jsonl line 2"):
        load(tmp_path / "s.jsonl")


def test_give_aways_of_a_list_are_taken_out() -> None:
    body = "Text by jm@jmason.example\n_______________________________________________\nIlug mailing list"
    assert clean("[ILUG] Re: hello", body) == "Re: hello\nText by someone@example.org"


def test_the_newest_slice_of_the_train_part_is_kept_for_thresholds(tmp_path: Path) -> None:
    rows = ["file\tlabel\tcluster\tsplit"]
    (tmp_path / "ham").mkdir()
    for n in range(10):
        (tmp_path / "ham" / f"{n:05}.txt").write_bytes(f"text {n}".encode())
        rows.append(f"ham/{n:05}.txt\teasy-ham\tc{n}\t{'test' if n > 7 else 'train'}")
    (tmp_path / "split.tsv").write_text("\n".join(rows) + "\n")
    found = mail_samples(tmp_path, tmp_path / "split.tsv", as_mail)
    assert [one.part for one in found] == ["train"] * 6 + ["recent"] * 2 + ["test"] * 2


def test_a_train_mail_with_the_text_of_a_test_mail_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "ham").mkdir()
    rows = ["file\tlabel\tcluster\tsplit"]
    for n, text in enumerate(("first", "the same", "the same", "the same", "other", "last")):
        (tmp_path / "ham" / f"{n}.txt").write_bytes(text.encode())
        rows.append(f"ham/{n}.txt\teasy-ham\tc{n}\t{'test' if n in (3, 5) else 'train'}")
    (tmp_path / "split.tsv").write_text("\n".join(rows) + "\n")
    dropped: list[Sample] = []
    found = mail_samples(tmp_path, tmp_path / "split.tsv", as_mail, dropped=dropped)
    assert [one.text for one in found] == ["first", "the same", "other", "last"]
    assert [(one.text, one.part == "test") for one in dropped] == [("the same", False)] * 2
    refuse_leaks(found)


def test_near_duplicates_of_a_text_message_are_one(tmp_path: Path) -> None:
    lines = [f"spam\tCall 0906{n} now to claim!" for n in range(10)] + [f"ham\tsee you at {w}" for w in "abcdefgh"]
    (tmp_path / "sms.tsv").write_text("\n".join(lines) + "\n")
    dropped: list[Sample] = []
    found = sms_samples(tmp_path / "sms.tsv", dropped=dropped)
    assert [one.text for one in dropped] == [f"Call 0906{n} now to claim!" for n in range(1, 10)]
    assert sum(one.label == "spam" for one in found) == 1
    assert len(found) == 9
    assert [one.part for one in found] == [one.part for one in sms_samples(tmp_path / "sms.tsv")]


def test_no_text_message_is_tested_with_that_is_nearly_a_learned_one(tmp_path: Path) -> None:
    chance = random.Random(3)
    words = ["lunch", "train", "rain", "mum", "later", "phone", "call", "bring", "milk", "keys", "home", "late", "work"]
    lines = []
    for number in range(120):
        body = " ".join(chance.choices(words, k=14))
        lines += [f"ham\t{number} hello {body}", f"ham\t{number} dear friend {body}"]  # two openings, one text
    (tmp_path / "sms.tsv").write_text("\n".join(lines) + "\n")
    dropped: list[Sample] = []
    found = sms_samples(tmp_path / "sms.tsv", dropped=dropped)
    assert {one.part for one in dropped} == {"test"} and len(dropped) > 20
    assert len(found) + len(dropped) == len(lines)
    assert [pair for pair in refuse_leaks(found) if pair[1].source == "sms"] == []


# -- figures


def test_a_perfect_ranking_is_worth_one_and_an_inverted_one_little() -> None:
    truth = np.array([True, True, False, False])
    assert average_precision(np.array([0.9, 0.8, 0.2, 0.1]), truth) == pytest.approx(1)
    assert average_precision(np.array([0.1, 0.2, 0.8, 0.9]), truth) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_recall_is_taken_at_the_threshold_that_lets_so_many_ham_through() -> None:
    scores = np.concatenate([np.linspace(0, 0.5, 1000), [0.49, 0.5001, 0.6, 0.9]])
    truth = np.array([False] * 1000 + [True] * 4)
    strict, threshold = recall_at(scores, truth, 0.0)
    assert (strict, threshold) == (0.75, 0.5)
    loose, _ = recall_at(scores, truth, 0.05)
    assert loose == 1.0


def test_calibration_error_is_the_gap_between_saying_and_being() -> None:
    truth = np.array([True] * 50 + [False] * 50)
    assert calibration_error(np.full(100, 0.5), truth) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.9), truth) == pytest.approx(0.4)


def test_a_report_counts_hard_ham_apart() -> None:
    samples = [
        sample("0.9", "test", label="spam"),
        sample("0.8", "test", label="spam"),
        sample("0.1", "test"),
        sample("0.85", "test", source="hard-ham"),
    ]
    report = spam_report(np.array([float(one.text) for one in samples]), samples, fixed=0.82)
    assert report["recall_at_0.1_percent"] == 0.5
    assert report["hard_ham_false_positives"] == 0.0
    assert (report["texts"], report["spam"]) == (4, 2)
    assert report["fixed_threshold"] == {
        "threshold": 0.82,
        "recall": 0.5,
        "false_positives": 0.5,
        "hard_ham_false_positives": 1.0,
    }

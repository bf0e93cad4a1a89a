"""`notifyr intents` and `notifyr train --intents`: own intents from the command line, and every head of `notifyr classify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import create_app
from assistant.db.session import Database
from assistant.errors import Conflict, InvalidInput
from assistant.services import intents

GIFT = [
    "Can you wrap it as a present?",
    "Please add a gift card with a greeting",
    "Is gift wrapping possible for this order?",
    "I would like it gift wrapped, it is a birthday present",
    "Can you put a note to my mother into the parcel?",
    "Do you offer gift boxes?",
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call a command on a database of this test's own; gives its JSON."""
    monkeypatch.setenv("NOTIFYR_DATA_DIR", str(tmp_path / "var"))

    def call(*words: str | Path, text: str = "") -> Any:
        done = CliRunner().invoke(create_app(), [*map(str, words), "--json"], input=text)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.strip().splitlines()[-1])

    return call


def test_an_intent_is_added_listed_and_tested(run: Callable[..., Any]) -> None:
    assert run("intents", "list") == []
    assert run("intents", "add", "Gift wrap", text="\n".join(GIFT)) == {
        "name": "gift_wrap",
        "version": 1,
        "examples": 6,
    }
    assert run("intents", "add", "gift-wrap", text="\n".join(GIFT[:5]))["version"] == 2
    (listed,) = run("intents", "list")
    assert (listed["name"], listed["examples"], listed["used"]) == ("gift_wrap", 5, True)
    said = run("intents", "test", "could you wrap the lamp as a present for my sister?")
    assert said["intent"] == "gift_wrap" and said["nearest"]["text"] in GIFT
    assert run("intents", "test", "what is the tallest mountain on mars")["intent"] == ""
    with pytest.raises(Conflict, match="ships with Notifyr"):
        run("intents", "add", "refund", text="\n".join(GIFT))


def test_an_intent_that_was_switched_off_is_in_use_when_it_is_added_again(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    run("intents", "add", "gift", text="\n".join(GIFT))
    database = Database(f"sqlite:///{tmp_path / 'var' / 'notifyr.db'}", pool_size=1)
    with database.transaction() as session:
        intents.enable(session, intents.listed(session)[0].id, enabled=False)
    run("intents", "add", "gift", text="\n".join(GIFT))
    assert run("intents", "list")[0]["used"] is True


def test_a_file_of_intents_is_learned_whole_or_not_at_all(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(json.dumps({"gift": GIFT, "museum": [f"museum ticket {n}" for n in range(8)]}))
    learned = run("train", "--intents", tmp_path / "good.json")
    assert [one["name"] for one in learned["intents"]] == ["gift", "museum"]
    assert learned["left_out_accuracy"] > 0.8
    (tmp_path / "more.csv").write_text("text,intent\n" + "\n".join(f"garden gnome {n},gnome" for n in range(5)))
    assert run("train", "--intents", tmp_path / "more.csv")["intents"][0]["name"] == "gnome"
    (tmp_path / "half.json").write_text(json.dumps({"kept": [f"kept {n}" for n in range(5)], "few": ["one"]}))
    with pytest.raises(InvalidInput):
        run("train", "--intents", tmp_path / "half.json")
    assert {one["name"] for one in run("intents", "list")} == {"gift", "museum", "gnome"}
    (tmp_path / "bad.json").write_text("[1, 2]")
    with pytest.raises(InvalidInput, match="neither JSON"):
        run("train", "--intents", tmp_path / "bad.json")


def test_every_head_labels_on_request(run: Callable[..., Any], tmp_path: Path) -> None:
    rows = ["Dejen de enviarme correos", "Where is my order? It is very late and I am angry.", "ok"]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in rows))
    heads = "spam,intent,reply_intent,urgency,sentiment,language,optout"
    run("classify", tmp_path / "in.jsonl", "--labels", heads, "--output", tmp_path / "out.jsonl")
    lines = [json.loads(line)["labels"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(set(line) == set(heads.split(",")) for line in lines)
    assert [line["optout"]["label"] for line in lines] == ["yes", "no", "no"]
    assert [line["language"]["label"] for line in lines] == ["es", "en", "unknown"]
    assert lines[1]["optout"]["score"] < 0.12 and lines[0]["optout"]["score"] > 0.9

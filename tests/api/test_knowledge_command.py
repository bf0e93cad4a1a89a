"""`notifyr knowledge`: add, list, search and switch approved answers from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import create_app
from assistant.errors import NotFound


@pytest.fixture
def run(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NOTIFYR_DATA_DIR", str(tmp_path / "var"))

    def call(*words: str, text: str = "") -> Any:
        done = CliRunner().invoke(create_app(), ["knowledge", *words, "--json"], input=text)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return call


def test_an_answer_is_added_replaced_listed_and_switched(run: Any) -> None:
    first = run("add", "Opening hours", text="We are open from 10:00 to 18:00.")
    again = run("add", "Opening hours", text="We are open from 9:00 to 18:00.")
    assert (first["id"], first["version"], again["version"]) == (again["id"], 1, 2)
    assert [item["title"] for item in run("list")] == ["Opening hours"]
    assert run("disable", first["id"])["disabled"] is True
    assert run("list") == []
    assert run("list", "--all")[0]["disabled"] is True
    run("enable", first["id"])
    assert len(run("list")) == 1


def test_a_search_shows_how_near_each_answer_is(run: Any) -> None:
    run("add", "Reset the password", text="You can set a new password at https://lumen.example/reset.")
    run("add", "Opening hours", text="We are open from 10:00 to 18:00.")
    found = run("search", "I forgot my password")
    assert found[0]["title"] == "Reset the password"
    assert found[0]["used"] is True
    assert found[0]["score"] > found[1]["score"]


def test_an_unknown_answer_is_not_found(run: Any) -> None:
    with pytest.raises(NotFound):
        run("disable", "nothing")

"""The language model that ships: the package's own answers, the same bytes from the same package, and what is broken is replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import structlog
from structlog.testing import CapturingLogger

from models.heads.language import ARRAYS, FOLDER, LANGUAGES, Languages
from models.training import labels
from models.training.language import keep_languages

TEXTS = list(dict.fromkeys(one.text for one in labels.optout_phrases()))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Languages:
    """Where there is no file of ours, the package's own model is read."""
    return Languages(tmp_path_factory.mktemp("nothing"))


def test_it_answers_as_the_package_does(packaged: Languages) -> None:
    assert len(TEXTS) > 500
    assert Languages().label(TEXTS) == packaged.label(TEXTS)


def test_the_package_gives_the_bytes_that_ship(tmp_path: Path) -> None:
    manifest = keep_languages(tmp_path)
    assert manifest == json.loads((FOLDER / "manifest.json").read_text())
    assert (tmp_path / ARRAYS).read_bytes() == (FOLDER / ARRAYS).read_bytes()
    assert manifest["languages"] == LANGUAGES


@pytest.mark.parametrize("damage", ["truncated", "altered", "another manifest"])
def test_a_broken_file_costs_time_and_no_answer(
    damage: str, packaged: Languages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "language"))
    file = folder / ARRAYS
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "altered":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    else:
        (folder / "manifest.json").write_text("[]")
    log = CapturingLogger()
    monkeypatch.setattr(structlog, "get_logger", lambda *_: log)
    assert Languages(folder).label(TEXTS[:20]) == packaged.label(TEXTS[:20])
    assert {(one.method_name, one.args) for one in log.calls} == {("warning", ("language_model_of_the_package",))}

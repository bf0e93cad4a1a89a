"""Search in the approved answers with the project's own encoder: the right one first, and silence when there is none."""

from __future__ import annotations

import email
import re
import shutil
from collections.abc import Iterator, Sequence
from email.policy import default
from pathlib import Path

import pytest

from api.commands.demo import answers, mails
from assistant.backends.vectors import Vectors
from assistant.db.session import Database
from assistant.errors import ModelUnavailable
from assistant.services import knowledge
from assistant.settings import ROOT, Settings
from models.base import Vectors as Matrix
from models.bert import Encoder
from models.catalog import load_embedder
from pipelines.library import Library
from pipelines.stages.retrieve import query_of
from tests.pipelines.turns import turn

WANTED = {
    "parcel": "Where is my parcel",
    "refund": "When a refund arrives",
    "password": "Reset the password",
    "damaged": "Item arrived damaged",
    "charged-twice": "Charged twice",
    "invoice": "Get an invoice",
    "sales": "Offers for companies",
    "cancel-order": "Cancel an order",
    "ship-norway": "Countries we deliver to",
    "emoji": "Dimmable bulbs",
    "attachment": "Part is missing",
    "thread-1": "Return an item",
    "long-1": "Lamp stopped working",
    "long-6": "Lamp stopped working",
    "injection": "When a refund arrives",
    "header-only": "Opening hours of the shop",
    "urgent": "Wrong item received",
    "html": "Change the delivery address",
}
FLOOR = float(Settings.model_fields["retrieval_floor"].default)


@pytest.fixture
def library(sqlite_database: Database, tmp_path: Path) -> Iterator[Library]:
    with sqlite_database.transaction() as session:
        knowledge.seed(session, answers())
    embedder = load_embedder(f"onnx:{ROOT / 'deploy/weights/encoder'}", threads=2)
    assert embedder is not None
    vectors = Vectors(tmp_path / "vectors")
    yield Library(sqlite_database, vectors, embedder)
    vectors.close()


def asked(name: str) -> str:
    content = next(content for found, content in mails("support@example.org") if found.partition("-")[2] == name)
    parsed = email.message_from_bytes(content, policy=default)
    body = parsed.get_body(("plain", "html"))
    text = re.split(r"\nOn .*wrote:", re.sub(r"<[^>]+>", " ", body.get_content() if body else ""))[0]
    return query_of(turn(text, subject=parsed["Subject"]))


def test_every_sample_question_finds_its_answer_first(library: Library) -> None:
    found = {name: library.search(asked(name), limit=3, floor=FLOOR) for name in WANTED}
    assert {name: passages[0].source if passages else "" for name, passages in found.items()} == WANTED


@pytest.mark.parametrize(
    "text",
    [
        "Which lighthouse in the Baltic sea is the oldest?",
        "what is the capital of peru",
        "play the next song",
        "how many calories are in an apple",
        "היכן ההזמנה שלי?",
        "",
    ],
)
def test_what_nobody_has_an_answer_for_finds_none(library: Library, text: str) -> None:
    assert library.search(text, limit=3, floor=FLOOR) == ()


def test_a_damaged_index_is_made_anew_within_the_search(library: Library) -> None:
    library.search("parcel", limit=3, floor=0)
    library.vectors._damaged = True
    assert library.search(asked("password"), limit=3, floor=FLOOR)[0].source == "Reset the password"


class Counting(Encoder):
    embedded = 0

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.embedded += len(texts)
        return super().embed(texts)


def test_a_refresh_with_a_damaged_encoder_leaves_the_index_of_the_good_one(
    sqlite_database: Database, tmp_path: Path
) -> None:
    """An index is made anew where it is damaged; where the model is, there is nothing to make it from."""
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    with sqlite_database.transaction() as session:
        knowledge.seed(session, answers())
    good = Library(sqlite_database, Vectors(tmp_path / "vectors"), Encoder(folder))
    before = good.search(asked("password"), limit=3, floor=FLOOR)
    network = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(network[:1000])
    with sqlite_database.transaction() as session:
        knowledge.add(session, title="Gift cards", text="A gift card is valid for three years.")
    assert good.search(asked("password"), limit=3, floor=FLOOR) == before, "what is in memory is not read again"
    good.vectors.close()
    damaged = Library(sqlite_database, Vectors(tmp_path / "vectors"), Encoder(folder))
    for work in (damaged.refresh, lambda: damaged.search("parcel", limit=3, floor=FLOOR)):
        with pytest.raises(ModelUnavailable, match=r"model\.onnx"):
            work()
    damaged.vectors.close()
    (folder / "model.onnx").write_bytes(network)
    counting = Counting(folder)
    mended = Library(sqlite_database, Vectors(tmp_path / "vectors"), counting)
    assert mended.search(asked("password"), limit=3, floor=FLOOR) == before
    assert counting.embedded <= 4, "but the question and the text that tries the index nothing was embedded again"
    mended.vectors.close()

"""An operator defines an intent on a page, and the next mail has it: in this process and in the workers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from api.main import create_app
from assistant.settings import Settings
from pipelines.container import build
from tests.api.conftest import World, serve

ROOT = Path(__file__).resolve().parents[2]
WARRANTY = (
    "My dishwasher broke after ten months, is it covered by the warranty?",
    "I would like to claim the guarantee for my drill",
    "The warranty card says two years, who repairs it?",
    "Is the repair free while the guarantee lasts?",
    "How do I make a warranty claim for these headphones?",
    "The zip failed within the guarantee period",
    "Does the manufacturer's warranty cover the battery?",
    "Please repair my kettle under warranty",
)


@pytest.fixture(params=["sqlite"])
def learning(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str
) -> Iterator[World]:
    """The API with the encoder that ships."""
    settings = make_settings(
        redis_url=valkey_url,
        database_url=sqlite_url,
        encoder=f"onnx:{ROOT / 'deploy/weights/encoder'}",
        generator="off",
    )
    container = build(settings)
    app = create_app(container)
    with serve(app) as url:
        made = World(container, app, url)
        made.fill()
        yield made
        for client in made.clients:
            client.close()


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data=fields, headers={"origin": str(client.base_url)}, follow_redirects=False)


def said(client: httpx.Client, text: str) -> str:
    """What the box says a mail would get."""
    page = post(client, "/settings/intents/try", text=text).text
    found = re.search(r'<div id="verdict".*?<strong>([^<]+)</strong>', page, re.DOTALL)
    assert found, page
    return unescape(found[1])


def define(client: httpx.Client, name: str = "Warranty claim", examples: tuple[str, ...] = WARRANTY) -> httpx.Response:
    return post(client, "/settings/intents", name=name, description="", examples="\n".join(examples))


def test_an_intent_from_eight_examples_is_in_use_at_once_in_every_process(learning: World) -> None:
    admin = learning.browser()
    question = "my toaster stopped working, do I still have warranty on it"
    worker = build(learning.container.settings)  # another process' view: its own models on the same database
    assert worker.classifier is not None
    worker.classifier.load()
    assert said(admin, question) != "warranty claim"
    began = time.monotonic()
    assert define(admin).status_code == 303
    assert said(admin, question) == "warranty claim"
    assert worker.classifier.classify([question])[0][0].name.startswith("spam:")
    best = next(label for label in worker.classifier.classify([question])[0] if label.head == "intent")
    assert best.name == "intent:warranty_claim" and best.score > 0.5
    assert time.monotonic() - began < 10
    worker.close()


def test_the_shipped_intents_go_on_beside_an_own_one_and_nonsense_gets_none(learning: World) -> None:
    admin = learning.browser()
    assert define(admin).status_code == 303
    assert said(admin, "I was charged twice this month") == "billing"
    assert said(admin, "Where is my order 48213? It should have arrived on Monday.") == "order status"
    for outside in ("what is the tallest mountain on mars", "lorem ipsum dolor sit amet", "🎉🎉🎉"):
        assert said(admin, outside) == "No intent claimed", outside


def test_two_intents_of_one_name_are_refused_with_words_and_nothing_typed_is_lost(learning: World) -> None:
    admin = learning.browser()
    shipped = define(admin, name="Refund")
    assert shipped.status_code == 409 and "ships with Notifyr" in shipped.text and WARRANTY[0] in unescape(shipped.text)
    assert define(admin).status_code == 303
    again = define(admin, name="warranty-claim")
    assert again.status_code == 409 and "there is already an intent named warranty_claim" in again.text
    shared = define(admin, name="Guarantee", examples=("one", "two", "three", WARRANTY[0].upper()))
    assert shared.status_code == 409 and "an example belongs to one intent" in shared.text
    few = define(admin, name="Few", examples=("one", "two"))
    assert few.status_code == 422 and "4 different examples" in few.text


def test_a_new_version_and_switching_off_count_from_the_next_mail(learning: World) -> None:
    admin = learning.browser()
    define(admin)
    page = admin.get("/settings/intents").text
    identity = re.search(r'action="/settings/intents/([0-9a-f-]{36})"', page)
    assert identity
    more = post(admin, f"/settings/intents/{identity[1]}", examples="\n".join((*WARRANTY, "guarantee please")))
    assert more.status_code == 303
    page = admin.get("/settings/intents").text
    assert "version 2" in page and "Go back to version 1" in page
    assert post(admin, f"/settings/intents/{identity[1]}/disable").status_code == 303
    assert said(admin, "is my drill covered by the warranty?") != "warranty claim"
    assert post(admin, f"/settings/intents/{identity[1]}/enable").status_code == 303
    assert said(admin, "is my drill covered by the warranty?") == "warranty claim"
    assert "intent.defined" in admin.get("/settings/audit").text


def test_without_an_encoder_the_page_says_so(world: World) -> None:
    page = world.browser().get("/settings/intents")
    assert page.status_code == 200 and "the encoder is off" in page.text
    assert world.browser("agent@example.org").get("/settings/intents").status_code == 403

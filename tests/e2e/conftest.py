"""One installation and one browser for the stories; each story has pages and contacts of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from api.main import create_app
from pipelines.container import Container
from tests.api.conftest import World, serve
from tests.support.installation import Installation, installation
from tests.support.servers import SmtpSink, find_binary, smtp_sink_server

CHROMIUM = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()
expect.set_options(timeout=15_000)  # a machine that is busy with others' work may need more than the usual five seconds
PASSWORD = "correct horse battery"


@pytest.fixture(scope="package")
def outside() -> Iterator[SmtpSink]:
    """The mail server of the world outside: the relay that replies leave by."""
    with smtp_sink_server() as sink:
        yield sink


@pytest.fixture(scope="package")
def server(outside: SmtpSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everything running with both default models, one approved answer in stock."""
    folder = tmp_path_factory.mktemp("installation") / "var"
    with installation(folder, relay_url=outside.url, undo_send_seconds="3") as running:
        answer = tmp_path_factory.mktemp("answers") / "delivery.txt"
        answer.write_text("We ship within 2 working days. You can follow your parcel under Orders in your account.")
        running.command("knowledge", "add", "Where is my order, when does my parcel arrive", "--file", str(answer))
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    binary = find_binary("chromium", "chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=binary, args=CHROMIUM)
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def signed_in(server: Installation, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored cookie of the first agent, who came by the one-time link."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.link)
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    page.wait_for_url("**/inbox**")
    path = tmp_path_factory.mktemp("browser") / "state.json"
    path.write_text(json.dumps(context.storage_state()))
    context.close()
    return path


@pytest.fixture(scope="module")
def new_page_of_module(server: Installation, browser: Browser, signed_in: Path) -> Iterator[Callable[[], Page]]:
    """A signed-in page for what a whole module is set up with."""
    context = browser.new_context(storage_state=str(signed_in), base_url=server.url)
    yield context.new_page
    context.close()


@pytest.fixture
def new_page(server: Installation, browser: Browser, signed_in: Path) -> Iterator[Callable[..., Page]]:
    """`new_page(width=375)`: a signed-in page. A console error, a page error or a breach of the policy fails the test.

    `forgives`: parts of what the browser may say, for a story in which a server is away.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def make(**options: object) -> Page:
        size = {"width": int(str(options.pop("width", 1440))), "height": int(str(options.pop("height", 900)))}
        forgiven = ("status of 4", *options.pop("forgives", ()))  # type: ignore[misc]  # a tuple of texts
        options = {"storage_state": str(signed_in), "base_url": server.url} | options
        context = browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        contexts.append(context)
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`))"
        )
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on(
            "console",
            lambda said: (
                problems.append(f"console: {said.text}")
                if said.type == "error" and not any(str(one) in said.text for one in forgiven)
                else None
            ),
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def world(container: Container) -> Iterator[World]:
    with serve(create_app(container)) as url:
        made = World(container, create_app(container), url)
        made.fill()
        yield made
        for client in made.clients:
            client.close()


@pytest.fixture
def desk(world: World, browser: Browser) -> Iterator[Callable[..., Page]]:
    """`desk("agent@example.org", width=375)`: a signed-in page of an agent. An error in the console fails the test."""
    contexts, problems = [], []

    def open_page(email: str = "admin@example.org", *, width: int = 1440, **options: object) -> Page:
        context = browser.new_context(base_url=world.url, viewport={"width": width, "height": 900}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto("/sign-in")
        page.fill("input[type=email]", email)
        page.fill("input[type=password]", PASSWORD)
        page.click("button.primary")
        page.wait_for_url("**/inbox**")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []

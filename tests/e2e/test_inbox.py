"""The inbox in a browser: review without a mouse, two agents on one suggestion, words that are never lost, live updates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.conftest import PASSWORD
from tests.support.installation import Installation, mail
from tests.support.servers import SmtpSink, wait_until

ASKED = "Hello, when does my parcel arrive?\n"


@pytest.fixture(scope="module")
def asked(server: Installation) -> Callable[[str], str]:
    """`asked("Dora")`: a question of a contact with that name has come in; its subject."""

    def ask(name: str) -> str:
        subject = f"Parcel of {name}"
        server.send(mail(f"{name} <{name.lower()}@customer.example>", subject, ASKED))
        return subject

    return ask


@pytest.fixture(scope="module")
def second_agent(server: Installation, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored cookie of Bo, who was invited from the command line."""
    made = json.loads(server.command("agents", "create", "bo@example.org", "--name", "Bo", "--json"))
    context = browser.new_context()
    page = context.new_page()
    page.goto(made["link"])
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    page.wait_for_url("**/inbox**")
    path = tmp_path_factory.mktemp("bo") / "state.json"
    path.write_text(json.dumps(context.storage_state()))
    context.close()
    return path


def card(page: Page) -> Locator:
    return page.get_by_role("region", name="Suggested reply")


def ready_row(page: Page, subject: str, view: str = "review") -> Locator:
    """The thread's row once it has its draft."""
    page.goto(f"/inbox?view={view}")
    row = page.locator(".row", has_text=subject)
    marks = row.locator(".mark-ready, .mark-check")
    wait_until(lambda: page.reload() and marks.count(), seconds=60, what=f"a draft for {subject}")
    return row


def open_thread(page: Page, subject: str) -> str:
    """Open the thread with its suggestion; the thread's id."""
    ready_row(page, subject).locator(".row-link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(subject)
    expect(card(page)).to_be_visible()
    return str(page.locator("#app").get_attribute("data-thread"))


def connected(page: Page) -> None:
    """Until the page's socket is open: a change before that is read with the page, not pushed to it."""
    page.wait_for_function("document.documentElement.dataset.ready === '1'")


def test_a_mail_shows_in_an_open_page_without_reload(
    new_page: Callable[..., Page], asked: Callable[[str], str]
) -> None:
    page = new_page()
    page.goto("/inbox?view=all&q=Livia")
    connected(page)
    page.evaluate("window.mark = 'same page'")
    subject = asked("Livia")
    expect(page.locator(".row", has_text=subject)).to_be_visible(timeout=15_000)
    expect(page.locator(".row .mark-ready, .row .mark-check")).to_be_visible(timeout=60_000)
    assert page.evaluate("window.mark") == "same page"


def test_a_suggestion_is_reviewed_sent_and_taken_back_by_keys_alone(
    new_page: Callable[..., Page], asked: Callable[[str], str], outside: SmtpSink
) -> None:
    subject = asked("Dora")
    page = new_page()
    ready_row(page, subject)
    page.goto("/inbox")
    connected(page)
    page.keyboard.press("g")
    page.keyboard.press("n")
    expect(page.locator(".view-title")).to_have_text("Needs review")
    page.keyboard.press("j")
    expect(page.locator(".row.cursor")).to_contain_text(subject)
    page.keyboard.press("o")
    expect(page.get_by_role("heading", level=1)).to_have_text(subject)
    expect(card(page)).to_contain_text("We ship within 2 working days")
    page.keyboard.press("y")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    page.keyboard.press("z")
    expect(page.locator(".toast")).to_contain_text("Nothing was sent")
    expect(page.get_by_role("heading", level=1)).to_have_text(subject)
    expect(card(page).locator("[data-key=accept]")).to_be_enabled()

    page.keyboard.press("i")
    box = page.get_by_label("Edit the reply")
    expect(box).to_be_focused()
    page.keyboard.press("Control+Home")
    page.keyboard.type("Dear Dora, ")
    expect(page.locator(".diff ins").first).to_contain_text("Dear")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    sent = wait_until(
        lambda: [one for one in outside.mails if one.recipients == ("dora@customer.example",)],
        seconds=30,
        what="the edited reply",
    )
    assert len(sent) == 1
    assert sent[0].message.get_content().startswith("Dear Dora, ")


def test_a_suggestion_is_dismissed_with_a_reason_and_drafted_again_by_keys(
    new_page: Callable[..., Page], asked: Callable[[str], str]
) -> None:
    page = new_page()
    open_thread(page, asked("Emil"))
    page.keyboard.press("d")
    expect(page.get_by_text("Why not?")).to_be_visible()
    page.keyboard.press("1")
    expect(page.locator(".toast")).to_contain_text("Suggestion dismissed")
    expect(card(page)).to_contain_text("wrong facts")
    page.keyboard.press("z")
    expect(card(page).locator("[data-key=accept]")).to_be_visible()
    version = page.locator("#suggestion").get_attribute("data-suggestion")
    page.keyboard.press("Shift+R")
    wait_until(
        lambda: (
            page.locator("#suggestion.face-proposed").count()
            and page.locator("#suggestion").get_attribute("data-suggestion") != version
        ),
        seconds=60,
        what="another draft",
    )


def test_the_keys_are_listed_and_the_palette_runs_them(server: Installation, new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.goto("/inbox")
    connected(page)
    page.keyboard.press("Shift+?")
    overlay = page.get_by_role("dialog", name="Keys")
    for group in ("List", "Suggestion", "Thread", "Anywhere", "Go to"):
        expect(overlay.get_by_role("heading", name=group, exact=True)).to_be_visible()
    page.keyboard.press("j")
    expect(overlay).to_be_visible()
    page.keyboard.press("Escape")
    expect(overlay).to_be_hidden()
    page.keyboard.press("Control+k")
    expect(page.locator("#palette-input")).to_be_focused()
    page.keyboard.type("knowl")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/knowledge"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Knowledge")


def test_the_second_of_two_agents_is_told_who_was_first_and_keeps_what_was_typed(
    new_page: Callable[..., Page], asked: Callable[[str], str], second_agent: Path, outside: SmtpSink
) -> None:
    first, second = new_page(), new_page(storage_state=str(second_agent))
    subject = asked("Freya")
    open_thread(first, subject)
    open_thread(second, subject)
    expect(first.locator("#presence")).to_contain_text("Bo", timeout=10_000)
    second.keyboard.press("i")
    second.keyboard.press("Control+Home")
    # The first agent's act reaches this page as it would on a slow line: after the second has pressed send.
    second.route(
        "**/inbox/*",
        lambda route: route.fulfill(status=429) if route.request.method == "GET" else route.continue_(),
    )
    first.keyboard.press("y")
    expect(first.locator(".toast")).to_contain_text("Sending in")
    second.keyboard.type("Typed by Bo. ")
    with second.expect_response("**/accept") as answer:
        second.keyboard.press("Control+Enter")
    assert answer.value.status == 409
    expect(second.get_by_role("alert")).to_contain_text("Decided by")
    expect(second).to_have_url(re.compile("/inbox/"))
    second.unroute_all()
    expect(second.locator("#reply")).to_have_value(re.compile("^Typed by Bo. "))
    second.reload()
    expect(second.locator("#reply")).to_have_value(re.compile("^Typed by Bo. "))
    wait_until(
        lambda: [one for one in outside.mails if one.recipients == ("freya@customer.example",)],
        seconds=30,
        what="the first agent's reply",
    )


def test_a_draft_survives_a_reload_and_a_new_mail(
    server: Installation, new_page: Callable[..., Page], asked: Callable[[str], str]
) -> None:
    page = new_page()
    thread_id = open_thread(page, asked("Gil"))
    page.keyboard.press("r")
    page.keyboard.type("Half a sent")
    expect(page.locator("#draft-state")).to_have_text("Draft kept")
    page.reload()
    expect(page.locator("#reply")).to_have_value("Half a sent")
    page.locator("#reply").press("End")
    page.keyboard.type("ence")
    before = mail("Gil <gil@customer.example>", "Parcel of Gil", ASKED)["Message-ID"]
    server.send(mail("Gil <gil@customer.example>", "Re: Parcel of Gil", "Any news?\n", In_Reply_To=before))
    expect(page.locator(".message")).to_have_count(2, timeout=15_000)
    expect(page.locator("#reply")).to_have_value("Half a sentence")
    expect(page.locator("#reply")).to_be_focused()
    page.goto(f"/inbox/{thread_id}")
    expect(page.locator("#reply")).to_have_value("Half a sentence")


@pytest.mark.parametrize("width", [320, 375])
def test_nothing_scrolls_sideways_on_a_phone_and_the_suggestion_comes_first(
    new_page: Callable[..., Page], asked: Callable[[str], str], width: int
) -> None:
    subject = asked(f"Hana{width}")
    page = new_page(width=width, height=700)
    for url in ("/inbox", "/inbox?view=spam", "/knowledge", "/settings"):
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), url
    open_thread(page, subject)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    accept = page.locator("[data-key=accept]")
    expect(accept).to_be_in_viewport()
    box = accept.bounding_box()
    assert box is not None
    assert box["height"] >= 44

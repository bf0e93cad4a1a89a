"""Writing in a browser: to all, forwards, notes, files, saved replies, later, done; what is asked before; threads put together."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from tests.support.installation import Installation, mail
from tests.support.servers import Delivered, SmtpSink, wait_until

Opener = Callable[..., Page]


@pytest.fixture
def thread(server: Installation, new_page: Callable[..., Page]) -> Opener:
    """`thread("Otto", "Otto's bike")`: a page with that thread open; no model is asked about it."""

    def make(name: str, subject: str, text: str = "The bell is loose.", **headers: str) -> Page:
        address = f"{name.lower()}@writing.example"
        server.send(mail(f"{name} Berg <{address}>", subject, text, **{"Auto_Submitted": "auto-generated"} | headers))
        page = new_page()
        page.goto(f"/inbox?q=from:{address}")
        row = page.locator(".row", has_text=subject)
        wait_until(lambda: page.reload() and row.count(), seconds=60, what=subject)
        row.locator(".row-link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(subject)
        page.locator("html[data-ready]").wait_for()
        return page

    return make


def arrived(outside: SmtpSink, recipient: str) -> Delivered:
    return wait_until(
        lambda: [one for one in outside.mails if recipient in one.recipients], seconds=60, what=f"mail to {recipient}"
    )[0]


def shown(page: Page, name: str) -> str:
    """A computed colour of the composer."""
    return str(page.evaluate("(name) => getComputedStyle(document.querySelector('#composer'))[name]", name))


def test_a_reply_to_all_goes_to_everybody_who_was_written_to(thread: Opener, outside: SmtpSink) -> None:
    page = thread("Otto", "Otto's bike", Cc="Pia Berg <pia@writing.example>")
    page.keyboard.press("a")
    expect(page.locator("#reply")).to_be_focused()
    expect(page.locator("#to")).to_have_value(re.compile("otto@writing.example"))
    expect(page.locator("#cc")).to_have_value(re.compile("pia@writing.example"))
    page.keyboard.type("We bring a new bell.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    got = arrived(outside, "pia@writing.example")
    assert set(got.recipients) == {"otto@writing.example", "pia@writing.example"}
    assert "pia@writing.example" in got.message["Cc"] and "We bring a new bell." in got.message.get_content()


def test_a_forward_asks_for_an_address_and_carries_the_message(thread: Opener, outside: SmtpSink) -> None:
    page = thread("Rolf", "Rolf's bike")
    page.keyboard.press("f")
    expect(page.locator("#to")).to_be_focused()
    page.keyboard.type("workshop@forwarded.example")
    expect(page.locator("#subject")).to_have_value(re.compile("Rolf's bike"))
    page.locator("#reply").focus()
    page.keyboard.press("Control+Home")
    page.keyboard.type("Can you look at it?\n")
    page.keyboard.press("Control+Enter")
    got = arrived(outside, "workshop@forwarded.example").message
    assert "Rolf's bike" in got["Subject"] and "In-Reply-To" not in got
    assert "Can you look at it?" in got.get_content() and "The bell is loose." in got.get_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_note_looks_different_says_so_and_never_leaves(
    thread: Opener, outside: SmtpSink, new_page: Callable[..., Page], scheme: str
) -> None:
    first = thread(f"Note{scheme}", f"A note in {scheme}")
    page = new_page(color_scheme=scheme)
    page.goto(first.url)
    page.locator("html[data-ready]").wait_for()
    before = shown(page, "backgroundColor"), shown(page, "borderTopColor")
    page.keyboard.press("m")
    expect(page.locator("#composer")).to_contain_text("Internal note, never sent")
    assert shown(page, "backgroundColor") != before[0]
    assert shown(page, "borderTopColor") != before[1]
    expect(page.locator("#reply")).to_be_focused()
    page.keyboard.type("Words among us only")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".message.note")).to_contain_text("Words among us only")
    expect(page.locator(".message.note")).to_contain_text("internal note")
    page.goto("/inbox?view=outbox")
    expect(page.locator(".row", has_text=f"A note in {scheme}")).to_have_count(0)
    assert not [one for one in outside.mails if b"Words among us only" in one.raw]


DROP = """(names) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File(["bell, part 7"], name, { type: "text/plain" }));
  const target = document.querySelector("#reply");
  for (const kind of ["dragover", "drop"]) target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
}"""


LEAST = """() => {
  const files = () => document.querySelectorAll("#uploads li").length;
  window.least = files();
  new MutationObserver(() => { least = Math.min(least, files()); }).observe(document.body, { childList: true, subtree: true });
}"""
"""`least` is the smallest number of files that was to be seen from now on."""


def test_dropped_files_wait_with_the_words_and_leave_with_them(thread: Opener, outside: SmtpSink) -> None:
    page = thread("Dina", "Dina's bike")
    page.keyboard.press("r")
    page.keyboard.type("The part is attached.")
    page.evaluate(DROP, ["bell.txt", "screw.txt"])
    expect(page.locator("#uploads li")).to_have_count(2)
    page.get_by_role("button", name="Remove screw.txt").click()
    expect(page.locator("#uploads li")).to_have_count(1)
    page.reload()
    expect(page.locator("#uploads li")).to_contain_text("bell.txt")
    expect(page.locator("#reply")).to_have_value("The part is attached.")
    page.locator("#reply").focus()
    page.keyboard.press("Control+Enter")
    got = arrived(outside, "dina@writing.example").message
    assert [part.get_filename() for part in got.iter_attachments()] == ["bell.txt"]


def test_a_page_that_was_asked_for_before_a_file_came_does_not_take_it_away(
    thread: Opener, server: Installation
) -> None:
    page = thread("Hedi", "Hedi's bike")
    page.keyboard.press("r")
    expect(page.locator("#reply")).to_be_focused()
    older: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if older or route.request.headers.get("hx-request") != "true" or route.request.method != "GET":
            route.continue_()
        else:
            older.append((route, route.fetch()))

    page.route("**/inbox*", hold)
    page.route("**/inbox/*", hold)
    answers = mail("Hedi Berg <hedi@writing.example>", "Hedi's bike", "")["Message-ID"]
    again = mail("Hedi Berg <hedi@writing.example>", "Re: Hedi's bike", "And the lamp.", In_Reply_To=answers)
    again["Auto-Submitted"] = "auto-generated"
    server.send(again)
    wait_until(lambda: page.wait_for_timeout(100) or older, seconds=60, what="the thread read again for her next mail")
    page.evaluate(DROP, ["bell.txt"])
    expect(page.locator("#uploads li")).to_have_count(1)
    page.evaluate(LEAST)
    route, answer = older[0]
    with page.expect_response(lambda response: response.request == route.request):
        route.fulfill(response=answer)
    page.wait_for_timeout(500)  # a page that is read once more would bring the file back
    assert page.evaluate("least") == 1


def test_a_slash_lists_saved_replies_and_fills_them_in(thread: Opener, new_page: Callable[..., Page]) -> None:
    settings = new_page()
    settings.goto("/settings/replies")
    settings.fill("#name", "Bell")
    settings.fill("#text", "Hello {first_name}, bells are free.")
    settings.get_by_role("button", name="Save reply").first.click()
    page = thread("Sven", "Sven's bike")
    expect(page.locator("body")).not_to_contain_text("bells are free")
    page.keyboard.press("r")
    page.keyboard.type("1/2 is no list\n")
    expect(page.locator("#saved")).to_be_hidden()
    page.keyboard.type("/")
    expect(page.locator("#saved")).to_be_visible()
    choice = page.locator("#saved button", has_text="Bell")
    expect(choice).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#saved")).to_be_hidden()
    expect(page.locator("#reply")).to_have_value("1/2 is no list\nHello Sven, bells are free.")


def test_send_later_waits_in_the_outbox_and_can_be_taken_back(thread: Opener, outside: SmtpSink) -> None:
    page = thread("Lara", "Lara's bike")
    page.keyboard.press("r")
    page.keyboard.type("On Tuesday we call you.")
    page.locator("details.later summary").click()
    page.locator("#later").fill("tue 9am")
    page.get_by_role("button", name="Send later").click()
    expect(page.locator(".toast")).to_contain_text("Will be sent later")
    expect(page.locator("details.later")).not_to_have_attribute("open", "")
    expect(page.locator(".message.outbound .status")).to_contain_text(re.compile("will be sent Tue .*09:00"))
    page.goto("/inbox?view=outbox")
    row = page.locator(".row", has_text="Lara's bike")
    row.locator(".row-link").click()
    page.get_by_role("button", name="Do not send").click()
    expect(page.locator("#reply")).to_have_value("On Tuesday we call you.")
    assert not [one for one in outside.mails if "lara@writing.example" in one.recipients]


def test_send_and_done_sends_and_closes_the_thread(thread: Opener, outside: SmtpSink) -> None:
    page = thread("Ivo", "Ivo's bike")
    address = page.url
    page.keyboard.press("r")
    page.keyboard.type("It is repaired.")
    page.keyboard.press("Control+Shift+Enter")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    arrived(outside, "ivo@writing.example")
    page.goto(address)
    expect(page.locator(".state")).to_have_text("done")


def test_a_file_that_is_mentioned_and_missing_and_a_stranger_are_asked_about_once(
    thread: Opener, outside: SmtpSink
) -> None:
    page = thread("Mona", "Mona's bike")
    page.keyboard.press("r")
    page.keyboard.type("The bill is attached.")
    page.locator("#to").fill("mona@writing.example, stranger@elsewhere.example")
    page.locator("#reply").focus()
    page.keyboard.press("Control+Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("no file is attached")
    expect(alert).to_contain_text("stranger@elsewhere.example is new in this conversation")
    expect(page.locator("#reply")).to_have_value("The bill is attached.")
    page.wait_for_timeout(3500)
    assert not [one for one in outside.mails if "mona@writing.example" in one.recipients]
    page.get_by_role("button", name="Send all the same").click()
    arrived(outside, "stranger@elsewhere.example")


def test_words_of_an_internal_note_are_not_sent_without_a_question(thread: Opener) -> None:
    page = thread("Nils", "Nils's bike")
    page.keyboard.press("m")
    page.keyboard.type("Do not tell them that the supplier is bankrupt since May")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".message.note")).to_have_count(1)
    page.keyboard.press("r")
    expect(page.locator("#composer")).to_have_attribute("data-compose", "reply")
    page.locator("#reply").focus()
    page.keyboard.type("Do not tell them that the supplier is bankrupt since May")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("internal note")


def test_somebody_who_said_stop_cannot_be_written_to_and_the_page_says_why(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    server.send(mail("Olga Berg <olga@stopped.example>", "STOP", "STOP\n"))
    page = new_page()
    page.goto("/inbox?view=all&q=from:olga@stopped.example")
    wait_until(lambda: page.reload() and page.locator(".row").count(), seconds=60, what="the mail")
    page.locator(".row-link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("STOP")
    notice = page.locator("#composer .notice-bad")
    wait_until(lambda: page.reload() and notice.count(), seconds=60, what="the opt-out")
    expect(notice).to_contain_text("asked not to be written to")
    expect(page.locator("#composer [data-key=send]")).to_be_disabled()
    expect(page.locator("#composer [data-key=send-done]")).to_be_disabled()
    page.keyboard.press("w")
    expect(page.locator("#context dl", has_text="email").first).to_contain_text("withdrawn")


def test_enter_in_a_line_of_the_composer_does_no_other_act(thread: Opener) -> None:
    page = thread("Elsa", "Elsa's bike")
    page.keyboard.press("r")
    page.evaluate(DROP, ["bell.txt"])
    expect(page.locator("#uploads li")).to_have_count(1)
    page.locator("#to").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#reply")).to_be_focused()
    expect(page.locator("#uploads li")).to_have_count(1)
    page.keyboard.type("Later then.")
    page.locator("details.later summary").click()
    page.locator("#later").fill("in 2 days")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text("Will be sent later")


def test_letters_typed_before_another_kind_has_come_are_words_and_not_acts(thread: Opener) -> None:
    page = thread("Tove", "Tove's bike")
    page.route("**/inbox/*compose=note*", lambda route: (page.wait_for_timeout(600), route.continue_()))
    page.keyboard.type("mhe said yes!")
    expect(page.locator("#reply")).to_have_value("he said yes!")
    expect(page.locator("#composer")).to_have_attribute("data-compose", "note")
    expect(page.locator(".state")).to_have_text("open")
    page.unroute_all(behavior="ignoreErrors")  # a request held back must not reach into the next test


def test_a_question_before_sending_stays_while_the_page_is_read_again(thread: Opener) -> None:
    page = thread("Kira", "Kira's bike")
    page.keyboard.press("r")
    page.keyboard.type("The bill is attached.")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("no file is attached")
    page.evaluate(
        "htmx.ajax('GET', location.pathname + location.search, {source: '#announce', target: '#app', select: '#app', swap: 'outerMorph'})"
    )
    page.wait_for_timeout(1000)
    expect(page.get_by_role("alert")).to_contain_text("no file is attached")
    page.get_by_role("button", name="Send all the same").click()
    expect(page.locator(".toast")).to_contain_text("Sending in")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_threads_are_merged_and_split_with_a_reason_and_a_way_back(thread: Opener) -> None:
    other = thread("Vera", "Vera's light", "It is dark.")
    old = other.url.partition("?")[0]
    page = thread("Vera", "Vera's bike")
    page.locator("details.merge summary").click()
    page.get_by_role("button", name="Merge threads").click()
    expect(page.locator(".toast")).to_have_count(0)
    page.locator("#merge-reason").fill("One bike")
    page.get_by_role("button", name="Merge threads").click()
    expect(page.locator(".toast")).to_contain_text("Threads merged")
    expect(page.locator(".message.inbound")).to_have_count(2)
    expect(page.locator(".event")).to_contain_text("One bike")
    page.goto(old)
    expect(page.locator(".message.inbound")).to_have_count(2)
    message = page.locator(".message.inbound").first
    message.locator("details.trail summary").click()
    message.locator("input[name=reason]").fill("Another matter")
    message.get_by_role("button", name="Split off").click()
    expect(page.locator(".toast")).to_contain_text("Split off into")
    expect(page.locator(".message.inbound")).to_have_count(1)
    page.locator("html[data-ready]").wait_for()
    page.keyboard.press("z")
    expect(page.locator(".message.inbound")).to_have_count(2)


def test_a_snoozed_thread_that_is_done_goes_back_to_sleep_by_undo(thread: Opener) -> None:
    page = thread("Zita", "Zita's bike")
    page.keyboard.press("h")
    expect(page.locator("#when")).to_be_focused()
    page.keyboard.type("tue 9am")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text(re.compile(r"Snoozed until (Tue|\d\d \w{3}) 9:00"))
    page.goto("/inbox?view=snoozed&q=from:zita")
    page.locator(".row-link").click()
    page.locator("html[data-ready]").wait_for()
    expect(page.locator(".state")).to_contain_text(re.compile(r"snoozed until (Tue|\d\d \w{3}) 9:00"))
    page.keyboard.press("Shift+!")
    expect(page.locator(".toast")).to_contain_text("Moved to spam")
    page.keyboard.press("z")
    expect(page.locator(".toast")).to_contain_text("Undone")
    page.goto("/inbox?view=snoozed&q=from:zita")
    expect(page.locator(".row .chip", has_text=re.compile(r"until (Tue|\d\d \w{3}) 9:00"))).to_have_count(1)

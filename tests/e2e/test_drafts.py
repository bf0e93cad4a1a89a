"""Unsent words: none is lost and none lands in another thread, by whatever way an agent leaves.

`TEST_DRAFTS` says how many times words are typed and left.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from assistant.db.access import AgentSession
from assistant.services import drafts
from tests.api.conftest import PASSWORD, World
from tests.support.servers import wait_until

MANY = int(os.environ.get("TEST_DRAFTS", "60"))
ROUGH = """const plain = window.fetch.bind(window);
window.fetch = async (address, how) => {
  if (!String(address).endsWith("/draft")) return plain(address, how);
  await new Promise((done) => setTimeout(done, Math.random() * 500));
  if (Math.random() < 0.15) throw new TypeError("the line was bad for a moment");
  return plain(address, how);
};"""
"""Each save takes up to half a second longer, and one in seven gets lost."""


def ready(page: Page) -> None:
    page.wait_for_function("document.documentElement.dataset.ready === '1'")


def opened(page: Page, thread: str, view: str = "all") -> None:
    page.goto(f"/inbox/{thread}?view={view}")
    ready(page)


def at(page: Page, thread: str) -> None:
    expect(page.locator("#app")).to_have_attribute("data-thread", thread)


def kept(world: World, thread: str, agent: str = "admin", kind: str = "reply") -> str:
    with world.container.database.reading() as session:
        found = drafts.load(session, thread, agent_id=world.ids[agent], kind=kind)
        return found.text if found is not None else ""


def by_key(page: Page, *keys: str) -> None:
    page.evaluate("document.activeElement.blur()")
    for key in keys:
        page.keyboard.press(key)


def test_words_typed_and_left_by_every_way_are_all_read_back(world: World, desk: Callable[..., Page]) -> None:
    chance = random.Random(20260)
    threads = [world.thread(subject=f"Draft {number}") for number in range(8)]
    page = desk()
    page.add_init_script(ROUGH)
    wanted: dict[str, str] = {}

    def cut(other: str) -> None:
        page.context.set_offline(True)
        page.keyboard.type(" more")
        page.wait_for_timeout(600)
        page.context.set_offline(False)
        page.locator(f"#row-{other} .row-link").click()

    ways: dict[str, Callable[[str], None]] = {
        "keys": lambda _: by_key(page, "j", "o"),
        "done": lambda _: by_key(page, "e"),
        "link": lambda other: page.locator(f"#row-{other} .row-link").click(),
        "reload": lambda _: page.reload(),
        "settings": lambda _: page.goto("/settings"),
        "back": lambda _: by_key(page, "u"),
        "network": cut,
        "stay": lambda _: page.wait_for_timeout(chance.randrange(900)),
    }
    used: list[str] = []
    for number in range(MANY):
        thread, other = chance.sample(threads, 2)
        if chance.random() < 0.5 and page.locator(f"#row-{thread} .row-link").count() and number:
            page.locator(f"#row-{thread} .row-link").click()
            at(page, thread)
        else:
            opened(page, thread)
        ready(page)
        box = page.locator("#reply")
        expect(box, f"after {used[-3:]}").to_have_value(wanted.get(thread, ""))
        box.click()
        page.keyboard.press("Control+a" if chance.random() < 0.3 else "Control+End")
        page.keyboard.type(f" w{number} {chance.randrange(10**6)}")
        way = chance.choice(list(ways))
        used.append(way)
        wanted[thread] = box.input_value() + (" more" if way == "network" else "")
        ways[way](other)
        world.clear_limits()
    for thread, text in wanted.items():
        opened(page, thread)
        at(page, thread)
        box = page.locator("#reply")
        expect(box).to_have_attribute("data-draft", f"/inbox/{thread}/draft")
        expect(box, f"the server has {kept(world, thread)!r}; left by {used}").to_have_value(text)
    for thread, text in wanted.items():
        wait_until(lambda: page.wait_for_timeout(50) or kept(world, thread) == text, seconds=30, what=text)  # noqa: B023
    lost = [thread for thread, text in wanted.items() if kept(world, thread) != text]
    print(f"{MANY} times left, {len(lost)} drafts lost")  # noqa: T201
    assert lost == []


def test_words_never_show_under_another_thread_and_leave_the_box_when_they_are_sent(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    page = desk()
    opened(page, first)
    page.locator("#to").fill("ana@example.net, boss@example.net")
    page.locator("#reply").click()
    page.keyboard.type("For the first alone")
    page.locator(f"#row-{second} .row-link").click()
    at(page, second)
    expect(page.locator("#reply")).to_have_value("")
    expect(page.locator("#to")).to_have_value(re.compile("^[^,]*$"))
    page.locator("#reply").fill("For the second")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    expect(page.locator("#reply")).to_have_value("")
    page.locator(f"#row-{first} .row-link").click()
    at(page, first)
    expect(page.locator("#reply")).to_have_value("For the first alone")
    expect(page.locator("#to")).to_have_value("ana@example.net, boss@example.net")
    page.wait_for_timeout(1000)
    assert kept(world, first) == "For the first alone"
    assert kept(world, second) == "", "what was sent is no draft any more"


def test_of_two_threads_that_were_opened_the_later_one_stays_under_the_hands(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    page = desk()
    opened(page, world.ids["thread"])
    page.evaluate(
        "([slow]) => { const plain = window.fetch.bind(window); window.fetch = async (address, how) => {"
        " const answer = await plain(address, how);"
        " if (String(address).includes(slow)) await new Promise((done) => setTimeout(done, 1200));"
        " return answer; }; }",
        [first],
    )
    page.locator(f"#row-{first} .row-link").click()
    page.locator(f"#row-{second} .row-link").click()
    at(page, second)
    page.locator("#reply").click()
    page.keyboard.type("For the second")
    page.wait_for_timeout(1800)
    at(page, second)
    expect(page.locator("#reply")).to_have_value("For the second")
    assert re.search(second, page.url)
    assert (kept(world, first), kept(world, second)) == ("", "For the second")


def test_an_older_save_never_lands_on_a_newer_one(world: World, desk: Callable[..., Page]) -> None:
    thread = world.thread()
    page = desk()
    page.add_init_script(
        "const plain = window.fetch.bind(window); window.saves = 0; window.fetch = async (address, how) => {"
        " if (String(address).endsWith('/draft')) { saves += 1; if (saves === 1) await new Promise((done) => setTimeout(done, 1500)); }"
        " return plain(address, how); };"
    )
    opened(page, thread)
    page.locator("#reply").click()
    page.keyboard.type("first")
    wait_until(lambda: page.wait_for_timeout(20) or page.evaluate("saves") == 1, seconds=10)
    page.keyboard.type(" and second")
    wait_until(lambda: page.wait_for_timeout(50) or kept(world, thread) == "first and second", seconds=10)
    page.wait_for_timeout(1500)
    assert kept(world, thread) == "first and second"
    expect(page.locator("#draft-state")).to_have_text("Draft kept")


def test_words_typed_after_the_session_ended_are_there_after_signing_in_again_and_for_nobody_else(
    world: World, desk: Callable[..., Page]
) -> None:
    thread = world.thread()
    page = desk()
    opened(page, thread)
    page.wait_for_timeout(300)
    with world.container.database.transaction() as session:
        session.query(AgentSession).delete()
    expect(page.locator("#offline")).to_contain_text("You are signed out")
    page.locator("#reply").fill("typed while signed out")
    page.wait_for_timeout(700)
    assert kept(world, thread) == ""

    def sign_in(email: str) -> None:
        page.fill("input[type=email]", email)
        page.fill("input[type=password]", PASSWORD)
        page.click("button.primary")
        page.wait_for_url(f"**/inbox/{thread}**")
        ready(page)

    page.get_by_role("link", name="Sign in again").click()
    sign_in("agent@example.org")
    expect(page.locator("#reply")).to_have_value("")
    page.context.clear_cookies()
    page.reload()
    sign_in("admin@example.org")
    expect(page.locator("#reply")).to_have_value("typed while signed out")
    wait_until(lambda: page.wait_for_timeout(50) or kept(world, thread) == "typed while signed out", seconds=10)
    assert kept(world, thread, "agent") == ""


def test_an_edit_and_a_note_keep_apart_from_the_reply(world: World, desk: Callable[..., Page]) -> None:
    _, thread = world.suggestion()
    page = desk()
    opened(page, thread)
    page.keyboard.press("i")
    page.keyboard.press("Control+End")
    page.keyboard.type(" Edited.")
    by_key(page, "m")
    expect(page.locator("#composer")).to_have_attribute("data-compose", "note")
    expect(page.locator("#reply")).to_be_focused()
    page.keyboard.type("Only among us")
    by_key(page, "r")
    expect(page.locator("#composer")).to_have_attribute("data-compose", "reply")
    expect(page.locator("#reply")).to_have_value("")
    page.reload()
    expect(page.locator("#edit-text")).to_have_value(re.compile("Edited.$"))
    for kind, text in (("edit", "Edited."), ("note", "Only among us")):
        wait_until(lambda: page.wait_for_timeout(50) or kept(world, thread, kind=kind).endswith(text), seconds=10)  # noqa: B023
    assert kept(world, thread) == ""

"""The inbox as a screen reader hears it, the card's way to snooze, and how often a page without a socket asks."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.api.conftest import World

HEARD = """
- link "Skip to content"
- navigation "Views":
  - link "New message"
  - list:
    - listitem:
      - link /Inbox/
    - listitem:
      - link /Needs review/
    - listitem:
      - link /Snoozed/
- region "Inbox":
  - heading "Inbox" [level=2]
  - search:
    - searchbox "Search"
  - combobox "Sort"
  - list:
    - listitem:
      - checkbox "Select Where is my refund?"
      - link /Ana Silva/
- main:
  - heading "Where is my refund?" [level=1]
  - toolbar "Thread actions":
    - button "Done"
    - button "Spam"
    - button "Star"
    - button "Unread"
    - button "Trash"
  - list:
    - listitem: /Hello, where is my refund/
  - region "Suggested reply":
    - text: ready
    - button "Accept & send"
    - button "Edit"
    - button "Dismiss"
    - group "Draft again, but":
      - button "shorter"
    - textbox "How should it differ?"
    - button "Draft again"
    - button "Snooze"
  - region "Reply":
    - navigation "What to write":
      - link "Reply"
      - link "Forward"
      - link "Internal note"
    - textbox "To"
    - textbox "Reply"
    - button "Saved replies"
    - button "Send & done"
    - button "Send"
"""
"""Roles and names in their order; what is not named here may stand between them."""


def test_a_screen_reader_hears_views_then_the_list_then_the_thread_with_its_card_and_composer(
    world: World, desk: Callable[..., Page]
) -> None:
    page = desk()
    page.goto(f"/inbox/{world.ids['thread']}?view=inbox")
    page.locator("html[data-ready]").wait_for()
    expect(page.locator("body")).to_match_aria_snapshot(HEARD)
    assert page.locator("h1").count() == 1


def test_the_card_opens_the_snooze_of_its_thread_and_a_slow_server_is_asked_less_often(
    world: World, desk: Callable[..., Page]
) -> None:
    other, page = world.thread(subject="Another"), desk()
    page.goto(f"/inbox/{world.ids['thread']}?view=inbox")
    page.locator("html[data-ready]").wait_for()
    page.locator(f"#row-{other} input").check()  # what is selected is not what the card is about
    page.locator("#suggestion [data-opens=snooze]").click()
    expect(page.locator("#when")).to_be_focused()
    page.keyboard.type("in 2 days")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text("Snoozed until")
    expect(page.locator(f"#row-{world.ids['thread']}")).to_have_count(0)
    pauses = "import('/static/poll.js').then(({ pause }) => [0, 50, 1000, 10000].map(pause).map(Math.round))"
    assert page.evaluate(pauses) == [1000, 1000, 6906, 24000]

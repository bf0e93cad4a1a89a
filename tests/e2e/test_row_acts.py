"""Acts by key on rows of the list: on the one under the cursor, on those that are selected, and who gets a thread."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.api.conftest import World
from tests.support.rows import at, filled, pressed, ready
from tests.support.servers import wait_until


def test_keys_act_on_the_row_under_the_cursor_and_the_cursor_goes_on(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 5), desk()
    ready(page, "/inbox")
    pressed(page, "e")
    pressed(page, "j", "j", "s")
    expect(page.locator(f"#row-{ids[1]} .star")).to_have_count(1)
    expect(page.locator(".toast")).to_contain_text("Starred")
    expect(page.locator("#rows input:checked")).to_have_count(0)
    assert at(world, ids[0]) == ("open", False, None), "a key without a row does nothing"
    pressed(page, "s")
    expect(page.locator(f"#row-{ids[1]} .star")).to_have_count(0)
    pressed(page, "e")
    expect(page.locator(f"#row-{ids[1]}")).to_have_count(0)
    expect(page.locator(f"#row-{ids[2]}.cursor .row-link")).to_be_focused()
    pressed(page, "#")
    expect(page.locator(f"#row-{ids[2]}")).to_have_count(0)
    pressed(page, "z")
    expect(page.locator(f"#row-{ids[2]}")).to_have_count(1)
    pressed(page, "Shift+Z")
    expect(page.locator(f"#row-{ids[2]}")).to_have_count(0)
    expect(page.locator(f"#row-{ids[3]}.cursor")).to_have_count(1)
    pressed(page, "e", "e")  # a key held down drops none
    expect(page.locator(f"#row-{ids[4]}")).to_have_count(0)
    states = [at(world, one)[0] for one in ids]
    assert states == ["open", "closed", "trash", "closed", "closed"]


def test_a_key_on_another_row_leaves_the_open_thread_where_it_is(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 3), desk()
    ready(page, f"/inbox/{ids[0]}?view=inbox")
    pressed(page, "j", "!")
    expect(page.locator(f"#row-{ids[1]}")).to_have_count(0)
    expect(page.locator("#thread h1")).to_have_text("Row 0")
    assert [at(world, one)[0] for one in ids] == ["open", "spam", "open"]
    page.locator("#thread").focus()
    pressed(page, "s")
    expect(page.locator("[data-key=star]")).to_contain_text("Unstar")
    assert [at(world, one)[1] for one in ids] == [True, False, False]


def test_a_thread_goes_to_a_colleague_by_key_and_back(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 2), desk()
    ready(page, f"/inbox/{ids[0]}?view=inbox")
    pressed(page, "v", "a", "a")
    expect(page.locator("[data-panel=assign] button:focus")).to_contain_text("Admin")
    pressed(page, "ArrowDown")
    expect(page.locator("[data-panel=assign] button:focus")).to_contain_text("Agent")
    pressed(page, "Enter")
    expect(page.locator(".toast")).to_contain_text("Assigned to Agent")
    expect(page.locator("summary[data-key=assign]")).to_contain_text("Agent")
    assert at(world, ids[0])[2] == world.ids["agent"]
    pressed(page, "z")
    expect(page.locator(".toast")).to_contain_text("Undone")
    assert at(world, ids[0])[2] is None


def test_selected_rows_are_snoozed_assigned_and_labelled_by_key(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 4), desk()
    ready(page, "/inbox")
    pressed(page, "j", "Shift+J", "v")
    expect(page.locator(".bulk-bar details[open] button:focus")).to_contain_text("Admin")
    pressed(page, "Enter")
    expect(page.locator(".toast")).to_contain_text("2 threads: assigned to you")
    assert [at(world, one)[2] for one in ids] == [world.ids["admin"]] * 2 + [None] * 2
    ready(page, "/inbox")
    pressed(page, "j", "j", "j", "h")
    expect(page.locator("#bulk-when")).to_be_focused()
    pressed(page, "Escape")
    expect(page.locator(".bulk-bar")).to_be_hidden()
    expect(page.locator(f"#row-{ids[2]} .row-link")).to_be_focused()
    pressed(page, "h")
    page.keyboard.type("in 2 days")
    pressed(page, "Enter")
    expect(page.locator(f"#row-{ids[2]}")).to_have_count(0)
    assert at(world, ids[2])[0] == "snoozed"
    expect(page.locator(f"#row-{ids[3]}.cursor")).to_have_count(1)
    pressed(page, "l")
    page.keyboard.type("money")
    pressed(page, "Enter")
    expect(page.locator(f"#row-{ids[3]} .label")).to_have_text("money")
    wait_until(lambda: page.locator(".bulk-bar").is_hidden(), what="the bar to go with its menu")

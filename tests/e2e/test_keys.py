"""Keys that no story presses, each with its effect; and every key of the table is pressed by some story."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from api.inbox.keys import KEYS, Key
from assistant.db.messages import Thread
from tests.api.conftest import World
from tests.support.rows import filled, pressed, ready

PRESSING = {"press", "pressed", "goes"}
"""Functions whose words are keys: of Playwright, of `tests/support/rows.py`, of this file."""
NAMES = {"\u2193": "ArrowDown", "\u2191": "ArrowUp", "Esc": "Escape", "1…9": "1"}


def is_unread(world: World, thread_id: str) -> bool:
    with world.container.database.reading() as session:
        return session.get_one(Thread, thread_id).unread


def test_u_and_escape_go_back_to_the_list_that_stands_beside_the_thread(
    world: World, desk: Callable[..., Page]
) -> None:
    """Regression: they did nothing on a wide screen."""
    ids, page = filled(world, 3), desk()
    ready(page, "/inbox")
    pressed(page, "j", "j", "o")
    expect(page.locator("#thread h1")).to_have_text("Row 1")
    here = page.locator(f"#row-{ids[1]}.cursor .row-link")
    page.locator("#thread").focus()
    pressed(page, "u")
    expect(here).to_be_focused()
    page.locator("#thread").focus()
    pressed(page, "Escape")
    expect(here).to_be_focused()


def test_u_and_escape_go_back_to_the_list_that_the_thread_covers(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 1), desk(width=375)
    ready(page, f"/inbox/{ids[0]}?view=inbox")
    pressed(page, "u")
    page.wait_for_url("**/inbox?view=inbox")
    expect(page.locator("#rows")).to_be_visible()
    ready(page, f"/inbox/{ids[0]}?view=inbox")
    pressed(page, "Escape")
    page.wait_for_url("**/inbox?view=inbox")


def test_arrows_move_the_cursor_of_the_list_down_and_up(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 3), desk()
    ready(page, "/inbox")
    pressed(page, "j", "ArrowDown", "ArrowDown")
    expect(page.locator(f"#row-{ids[2]}.cursor .row-link")).to_be_focused()
    pressed(page, "ArrowUp")
    expect(page.locator(f"#row-{ids[1]}.cursor .row-link")).to_be_focused()
    pressed(page, "Enter")
    expect(page.locator("#thread h1")).to_have_text("Row 1")


def test_shift_k_selects_upwards_and_one_act_takes_them_all(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 4), desk()
    ready(page, "/inbox")
    pressed(page, "j", "j", "j", "Shift+K", "Shift+K")
    expect(page.locator("#bulk-count")).to_contain_text("3")
    expect(page.locator(f"#row-{ids[0]}.cursor")).to_have_count(1)
    for number, selected in enumerate((True, True, True, False)):
        expect(page.locator(f"#row-{ids[number]} input")).to_be_checked(checked=selected)
    pressed(page, "Shift+U")
    expect(page.locator(", ".join(f"#row-{one}.unread" for one in ids))).to_have_count(3)
    assert [is_unread(world, one) for one in ids] == [True, True, True, False]


def test_shift_u_marks_the_open_thread_as_unread(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 2), desk()
    ready(page, f"/inbox/{ids[1]}?view=inbox")
    page.locator("#thread").focus()
    pressed(page, "Shift+U")
    expect(page.locator(f"#row-{ids[1]}.unread")).to_have_count(1)
    assert [is_unread(world, one) for one in ids] == [False, True]


def test_a_dot_goes_to_the_acts_of_the_thread(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 2), desk()
    ready(page, f"/inbox/{ids[0]}?view=inbox")
    pressed(page, ".")
    expect(page.locator(".acts [data-key=done]")).to_be_focused()
    pressed(page, "Tab", "Tab", "Enter")
    expect(page.locator(".acts [data-key=star]")).to_contain_text("Unstar")


def test_a_slash_goes_to_the_search_and_enter_searches(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 3), desk()
    ready(page, "/inbox")
    pressed(page, "/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type('subject:"Row 2"')
    pressed(page, "Enter")
    expect(page.locator("#rows .row")).to_have_count(1)
    expect(page.locator(f"#row-{ids[2]}")).to_have_count(1)


def test_c_opens_a_new_message_from_the_list_and_from_a_thread(world: World, desk: Callable[..., Page]) -> None:
    ids, page = filled(world, 1), desk()
    for path in ("/inbox", f"/inbox/{ids[0]}?view=inbox"):
        ready(page, path)
        pressed(page, "c")
        page.wait_for_url("**/compose")
        expect(page.locator("#to")).to_be_focused()


def goes(page: Page, *keys: str, to: str) -> None:
    ready(page, "/inbox?view=done")
    pressed(page, *keys)
    page.wait_for_url(f"**{to}")


def test_two_keys_in_a_row_go_to_every_place(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    goes(page, "g", "i", to="/inbox")
    goes(page, "g", "n", to="/inbox?view=review")
    goes(page, "g", "o", to="/inbox?view=outbox")
    goes(page, "g", "t", to="/inbox?view=sent")
    goes(page, "g", "s", to="/inbox?view=snoozed")
    goes(page, "g", "p", to="/inbox?view=spam")
    goes(page, "g", "k", to="/knowledge")
    goes(page, "g", ",", to="/settings")
    expect(page.locator("#rail [aria-current=page]")).to_have_text("Settings")


# -- none is forgotten


def constants(node: ast.AST) -> Iterator[str]:
    yield from (one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str))


def pressed_by_stories() -> tuple[set[str], set[tuple[str, str]]]:
    """Every key that is pressed in this folder, and every two that are pressed one after the other by one call."""
    single: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in PRESSING:
                words = [word for argument in node.args for word in constants(argument)]
                single |= {_plain(word) for word in words}
                pairs |= set(pairwise(words))
    return single, pairs


def _plain(keys: str) -> str:
    """`Shift+<` and `<` are one key: whether a sign needs Shift is up to the keyboard."""
    return re.sub(r"^Shift\+(?=[^\w\s])", "", keys)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.act)
def test_every_key_of_the_table_is_pressed_by_a_story(key: Key) -> None:
    single, pairs = pressed_by_stories()
    for keys in filter(None, (key.keys, key.also)):
        if " " in keys:
            assert tuple(keys.split(" ")) in pairs, keys
        else:
            assert NAMES.get(keys, keys.replace("$mod", "Control")) in single, keys


def test_every_key_of_the_page_of_keys_is_in_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()
    listed = re.findall(r"^\| (`.*`) \|", page, re.MULTILINE)
    assert len(listed) == len(KEYS)

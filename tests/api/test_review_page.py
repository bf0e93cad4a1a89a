"""The suggestion card as pages and forms: what has no source, drafts to walk, a stopped draft, who else writes, redo."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from assistant.db.messages import Message, Suggestion
from assistant.services import drafts
from assistant.states import Direction, SuggestionState
from tests.api.conftest import BOTH, World

ENGINES = BOTH

TEXT = "Hello Ana,\n\nYour refund of 42.10 was sent today."


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    """One form post, and the page after it."""
    return client.post(path, data={name: str(value) for name, value in fields.items()}, follow_redirects=True)


def flagged(world: World, **values: Any) -> tuple[str, str]:
    start = TEXT.index("today")
    return world.suggestion(
        text=TEXT,
        spans=[{"start": start, "end": start + 5, "kind": "date", "text": "today"}],
        marks=[{"at": TEXT.index("42.10") + 5, "number": 1, "start": 0, "end": 7}],
        **values,
    )


def sent(world: World, thread: str) -> int:
    with world.container.database.reading() as session:
        return session.query(Message).filter_by(thread_id=thread, direction=Direction.OUTBOUND).count()


def row(world: World, suggestion: str) -> Suggestion:
    with world.container.database.reading() as session:
        return session.get_one(Suggestion, suggestion)


def test_what_has_no_source_is_underlined_and_cannot_be_sent(world: World) -> None:
    client = world.browser()
    suggestion, thread = flagged(world)
    page = client.get(f"/inbox/{thread}").text
    assert '<span class="unsupported">today</span><span class="unsupported-word">unsupported</span>' in page
    assert re.search(r'data-key="accept"[^>]*disabled', page)
    refused = post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=1)
    assert refused.status_code == 409
    assert "no source says “today”" in refused.text
    by_key = client.post(f"/api/v1/suggestions/{suggestion}/accept", json={}, headers={"if-match": '"1"'})
    assert (by_key.status_code, by_key.json()["code"], by_key.json()["unsupported"]) == (409, "unsupported", ["today"])
    assert sent(world, thread) == 0


def test_editing_it_out_enables_sending_and_the_diff_says_what_is_left(world: World) -> None:
    client = world.browser()
    suggestion, thread = flagged(world)
    still = post(client, f"/suggestions/{suggestion}/diff", text=TEXT + " Bye")
    assert 'data-left="1"' in still.text and "No source says “today”" in still.text
    edited = TEXT.replace(" today", "")
    assert 'data-left="0"' in post(client, f"/suggestions/{suggestion}/diff", text=edited).text
    assert (
        post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=1, text=edited).status_code == 200
    )
    assert (sent(world, thread), row(world, suggestion).state) == (1, SuggestionState.EDITED)


def test_a_citation_leads_to_its_words_with_title_version_and_number(world: World) -> None:
    client = world.browser()
    _, thread = flagged(world)
    page = client.get(f"/inbox/{thread}").text
    assert re.search(r'42\.10<a class="cite"[^>]*data-cite="1" data-from="0"[^>]*>\[1\]</a>', page)
    assert '<mark data-at="0">Refunds</mark> ...' in page
    assert "[1] Refunds v1" in page


def test_drafts_are_walked_and_an_older_one_is_sent(world: World) -> None:
    client = world.browser()
    older, thread = world.suggestion(text="The first draft.")
    newer, _ = world.suggestion(thread, text="The second draft.")
    page = client.get(f"/inbox/{thread}").text
    assert "The second draft." in page and "2 of 2 drafts" in page and f"draft={older}" in page
    page = client.get(f"/inbox/{thread}", params={"draft": older}).text
    assert "The first draft." in page and "1 of 2 drafts" in page and f"draft={newer}" in page
    assert post(client, f"/suggestions/{older}/accept", thread_id=thread, version=1).status_code == 200
    assert sent(world, thread) == 1
    assert (row(world, older).state, row(world, newer).state) == (SuggestionState.ACCEPTED, SuggestionState.EXPIRED)


@pytest.fixture
def drafting(world: World) -> tuple[str, str]:
    """A draft of which a worker has written some words."""
    suggestion, thread = world.suggestion(state=SuggestionState.DRAFTING, text="")
    assert world.container.bus.write_draft(suggestion, "Hello Ana, your ref")
    return suggestion, thread


def test_a_page_that_opens_late_shows_what_is_written_so_far(world: World, drafting: tuple[str, str]) -> None:
    assert "Hello Ana, your ref" in world.browser().get(f"/inbox/{drafting[1]}").text


def test_a_stopped_draft_frees_its_writer_and_its_words_can_be_taken(world: World, drafting: tuple[str, str]) -> None:
    client = world.browser()
    suggestion, thread = drafting
    page = post(client, f"/suggestions/{suggestion}/stop", thread_id=thread).text
    assert ">stopped</span>" in page and "Hello Ana, your ref" in page and "Write on from here" in page
    assert not world.container.bus.write_draft(suggestion, "Hello Ana, your refund"), "the writer is told to stop"
    again = post(client, f"/suggestions/{suggestion}/stop", thread_id=thread)
    assert again.status_code == 409
    page = post(client, f"/suggestions/{suggestion}/take", thread_id=thread).text
    assert "Hello Ana, your ref</textarea>" in page
    assert row(world, suggestion).text == ""


def test_a_stopped_draft_can_be_thrown_away(world: World, drafting: tuple[str, str]) -> None:
    client = world.browser()
    suggestion, thread = drafting
    post(client, f"/suggestions/{suggestion}/stop", thread_id=thread)
    page = post(client, f"/suggestions/{suggestion}/throw-away", thread_id=thread).text
    assert "Hello Ana, your ref" not in page
    assert sent(world, thread) == 0
    proposed, other = world.suggestion()
    assert post(client, f"/suggestions/{proposed}/throw-away", thread_id=other).status_code == 409


def test_while_another_types_sending_takes_one_deliberate_press_more(world: World) -> None:
    client = world.browser()
    suggestion, thread = world.suggestion()
    world.container.bus.present(thread, world.ids["agent"], name="Bo", state="typing")
    page = client.get(f"/inbox/{thread}").text
    assert "Bo is replying" in page and 'data-key="override"' in page
    assert re.search(r'data-key="accept"[^>]*disabled', page)
    refused = post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=1)
    assert refused.status_code == 409 and "Bo is replying" in refused.text
    assert post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=1, override=1).status_code == 200
    assert sent(world, thread) == 1


def test_ones_own_typing_locks_nothing(world: World) -> None:
    client = world.browser()
    suggestion, thread = world.suggestion()
    world.container.bus.present(thread, world.ids["admin"], name="Admin", state="typing")
    assert post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=1).status_code == 200


def test_taking_over_offers_their_text_and_keeps_both(world: World) -> None:
    client = world.browser()
    thread = world.thread()
    with world.container.database.transaction() as session:
        drafts.save(session, thread, agent_id=world.ids["admin"], text="Mine.")
        theirs = drafts.save(session, thread, agent_id=world.ids["agent"], text="Bo's words.")
        note = drafts.save(session, thread, agent_id=world.ids["agent"], text="Secret note.", kind="note")
    assert theirs is not None and note is not None
    page = client.get(f"/inbox/{thread}").text
    assert "Unsent words of Agent" in page and "Secret note." not in page
    page = post(client, f"/inbox/{thread}/take-over", draft=theirs.id).text
    assert "Mine.\n\nBo&#39;s words.</textarea>" in page
    with world.container.database.reading() as session:
        kept = drafts.load(session, thread, agent_id=world.ids["agent"])
    assert kept is not None and kept.text == "Bo's words."
    assert post(client, f"/inbox/{thread}/take-over", draft=note.id).status_code == 404


def test_what_was_undone_is_done_again_by_the_toast(world: World) -> None:
    client = world.browser()
    suggestion, thread = world.suggestion()

    def press(page: str, key: str) -> str:
        """Press the toast's button, as its key does."""
        toast = page[page.index('id="toasts"') :]
        for form in re.findall(r"<form.*?</form>", toast, re.DOTALL):
            if f'data-key="{key}"' in form:
                fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
                action = re.search(r'action="([^"]*)"', form)
                assert action is not None
                return post(client, action.group(1), **fields).text
        pytest.fail(f"no {key} in {toast[:900]}")

    page = post(client, f"/suggestions/{suggestion}/reject", thread_id=thread, version=1, reason="unsafe").text
    page = press(page, "undo")
    assert row(world, suggestion).state == SuggestionState.PROPOSED
    page = press(page, "redo")
    assert (row(world, suggestion).state, row(world, suggestion).reject_reason) == (SuggestionState.REJECTED, "unsafe")
    page = press(press(page, "undo"), "redo")
    page = press(page, "undo")
    version = row(world, suggestion).version
    page = post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=version).text
    page = press(page, "undo")
    assert "Taken back" in page
    press(page, "redo")
    assert row(world, suggestion).state == SuggestionState.ACCEPTED
    other = world.thread()
    page = press(press(post(client, f"/inbox/{other}/act", act="done").text, "undo"), "redo")
    assert client.get(f"/api/v1/threads/{other}").json()["state"] == "closed"


def test_only_who_dismissed_says_why_and_only_while_it_stays_dismissed(world: World) -> None:
    client, other = world.browser(), world.browser("agent@example.org")
    suggestion, thread = world.suggestion()
    told = {"thread_id": thread, "reason": "unsafe"}
    assert post(client, f"/suggestions/{suggestion}/reason", **told).status_code == 409
    page = post(client, f"/suggestions/{suggestion}/reject", thread_id=thread, version=1).text
    assert page.count('name="reason" value="unsafe"') == 1, "the reasons are buttons, also without a script"
    assert 'value="unsafe"' not in other.get(f"/inbox/{thread}").text
    assert post(other, f"/suggestions/{suggestion}/reason", **told).status_code == 409
    assert post(client, f"/suggestions/{suggestion}/reason", thread_id=thread, reason="dull").status_code == 422
    assert row(world, suggestion).reject_reason == ""
    page = post(client, f"/suggestions/{suggestion}/reason", **told).text
    assert "Suggestion dismissed" in page and row(world, suggestion).reject_reason == "unsafe"
    post(client, f"/suggestions/{suggestion}/restore", thread_id=thread)
    assert post(client, f"/suggestions/{suggestion}/reason", **told).status_code == 409
    assert (row(world, suggestion).state, row(world, suggestion).reject_reason) == (SuggestionState.PROPOSED, "")


def test_who_is_at_a_thread_shows_in_the_list_of_the_others(world: World) -> None:
    thread = world.thread()
    world.container.bus.present(thread, world.ids["agent"], name="Bo", state="viewing")
    assert "Bo is viewing" in world.browser().get("/inbox").text
    assert "Bo is viewing" not in world.browser("agent@example.org").get("/inbox").text
    world.container.bus.absent(thread, world.ids["agent"])
    assert "Bo is viewing" not in world.browser().get("/inbox").text


def test_the_trust_page_says_when_it_knows_too_little_and_shows_what_it_knows(world: World) -> None:
    client = world.browser()
    page = client.get("/settings/trust").text
    assert "Too few to say" in page and 'class="chart"' not in page
    for number in range(20):
        suggestion, thread = world.suggestion(intent="refund_status", estimate=0.9)
        if number < 18:
            post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version=1)
        else:
            post(client, f"/suggestions/{suggestion}/reject", thread_id=thread, version=1, reason="wrong tone")
        if number % 6 == 5:
            world.clear_limits()
    page = client.get("/settings/trust").text
    assert "Too few to say: " not in page and 'class="chart"' in page
    assert "<td>refund status</td><td>18</td><td>20</td><td>70 %</td>" in page
    assert "<tr><td>90 %</td><td>90 %</td><td>20</td></tr>" in page


def test_an_edit_that_looks_odd_is_asked_about_once_and_sent_with_a_second_press(world: World) -> None:
    client = world.browser()
    suggestion, thread = world.suggestion()
    edited = {"thread_id": thread, "version": "1", "text": "Hello Ana, see the attached invoice."}
    asked = post(client, f"/suggestions/{suggestion}/accept", **edited)
    page = unescape(asked.text)
    assert asked.status_code == 409 and "You wrote “attached”, but no file is attached" in page
    assert "see the attached invoice.</textarea>" in page
    # Only the edit is confirmed by a second press, not what may stand in the composer.
    assert page.count('name="confirmed" value="yes"') == 1 and page.count("Send all the same") == 1
    assert page.index('name="confirmed"') < page.index('id="composer"')
    assert sent(world, thread) == 0
    done = post(client, f"/suggestions/{suggestion}/accept", **edited, confirmed="yes")
    assert done.status_code in {200, 303}, done.text
    assert sent(world, thread) == 1

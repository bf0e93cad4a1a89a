"""Merging and splitting on the pages: forms, the way back, and addresses that lead to where the messages are."""

from __future__ import annotations

import re
from html import unescape

import httpx

from assistant.services import threads
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data=fields, headers={"accept": "text/html"}, follow_redirects=True)


def test_a_merged_thread_shows_who_and_why_and_its_address_leads_there(world: World) -> None:
    client, colleague = world.browser(), world.browser("agent@example.org")
    first, second = world.ids["thread"], world.thread(subject="Again: refund?")
    page = unescape(client.get(f"/inbox/{first}").text)
    assert "Merge this thread into" in page and "Again: refund?" in page and "Other threads" in page
    refused = post(client, f"/inbox/{second}/merge", into=first, reason="")
    assert refused.status_code == 422 and "say why" in refused.text
    merged = post(client, f"/inbox/{second}/merge", into=first, reason="same <order>", view="inbox")
    assert merged.status_code == 200 and merged.url.path == f"/inbox/{first}"
    assert "Threads merged" in merged.text and "same &lt;order&gt;" in merged.text
    old = colleague.get(f"/inbox/{second}?view=all", follow_redirects=False)
    assert (old.status_code, old.headers["location"]) == (303, f"/inbox/{first}?view=all")
    assert "Again: refund?" in unescape(colleague.get(f"/inbox/{second}", follow_redirects=True).text)
    move = re.findall(r'action="/moves/([^/]+)/undo"', merged.text)[0]
    assert post(client, f"/moves/{move}/undo", thread_id=first).status_code == 200
    assert post(client, f"/moves/{move}/undo", thread_id=first).status_code == 409
    assert colleague.get(f"/inbox/{second}", follow_redirects=False).status_code == 200
    trail = client.get("/settings/audit?area=thread").text
    assert "thread.merged" in trail and "thread.merge.undone" in trail


def test_a_message_is_split_off_from_the_page(world: World) -> None:
    client, first = world.browser(), world.ids["thread"]
    post(client, f"/inbox/{world.thread()}/merge", into=first, reason="same")
    with world.container.database.reading() as session:
        message = threads.messages_of(session, first)[-1].id
    assert f'action="/messages/{message}/split"' in client.get(f"/inbox/{first}").text
    done = post(client, f"/messages/{message}/split", thread_id=first, reason="another matter")
    assert done.status_code == 200 and done.url.path == f"/inbox/{first}" and "Split off into" in done.text
    fresh = re.findall(r'Split off into <a href="/inbox/([^?"]+)', done.text)[0]
    page = client.get(f"/inbox/{fresh}").text
    assert "split this off" in page and f'id="message-{message}"' in page and "/split" not in page
    assert post(client, f"/messages/{message}/split", thread_id=fresh, reason="x").status_code == 409

"""Every view in each of its states: empty, nothing found, partly working, refused, failed. What is shown says what to do next."""

from __future__ import annotations

import contextlib
import re
import subprocess
from html import unescape

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import delete, select

from api.inbox.words import VIEW_WORDS
from api.main import create_app
from assistant.clock import utcnow
from assistant.db.knowledge import Document
from assistant.db.messages import Message, Thread
from assistant.services import overview, searching, threads
from assistant.states import ThreadState
from pipelines.container import build
from tests.api import test_page_matrix
from tests.api.conftest import BOTH, World, serve
from tests.support.servers import redis_server, smtp_sink_server

ENGINES = BOTH
HTML = {"accept": "text/html"}
VIEWS = (*VIEW_WORDS, "all")
ADMIN = tuple(f"/settings/{name}" for name in "agents audit intents keys labels server".split())
SINGLE = (
    "/compose",
    "/help",
    "/knowledge",
    "/learning",
    "/models",
    "/settings",
    "/settings/replies",
    "/settings/trust",
)
PAGES = (*(f"/inbox?view={view}" for view in VIEWS), *SINGLE, *ADMIN)
FRAGMENTS = frozenset({"/palette"})
"""What is no page but a part of one."""


def test_no_page_is_left_out_here() -> None:
    """A page that is new in the table of rights has to stand in this file's list, too."""
    declared = {
        route.split()[1]: who
        for route, who in test_page_matrix.PAGES.items()
        if route.startswith("GET ") and who in {"agent", "admin"} and "{" not in route
    }
    assert set(declared) - FRAGMENTS == {"/inbox", *SINGLE, *ADMIN}
    assert {path for path, who in declared.items() if who == "admin"} == set(ADMIN)


def emptied(world: World) -> httpx.Client:
    with world.container.database.transaction() as session:
        session.execute(delete(Message))
        session.execute(delete(Thread))
        session.execute(delete(Document))
    return world.browser()


def empty_state(text: str) -> str:
    """The part of a page that stands where its rows would."""
    found = re.search(r'<div class="empty">.*?</div>', text, re.DOTALL)
    assert found, text[:2000]
    return found[0]


def primaries(part: str) -> list[str]:
    return re.findall(r'<(?:a|button)[^>]*class="[^"]*\bprimary\b', part)


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_view_has_a_sentence_and_exactly_one_primary_act(world: World, view: str) -> None:
    client = emptied(world)
    text = client.get(f"/inbox?view={view}").text
    assert "This list is empty" in text and "Choose one with" not in text, "the pane beside it does not ask to choose"
    part = empty_state(text)
    assert len(primaries(part)) == 1 and re.search(r"<h2>[^<]+</h2>", part), part
    link = re.search(r'class="button primary" href="([^"]+)"', part)
    assert link is None or client.get(unescape(link[1])).status_code == 200


@pytest.mark.parametrize("view", VIEWS)
def test_a_search_without_a_match_offers_to_clear_itself(world: World, view: str) -> None:
    client = world.browser()
    part = empty_state(client.get("/inbox", params={"view": view, "q": "no such <words>"}).text)
    assert "No match" in part and "&lt;words&gt;" in part
    assert len(primaries(part)) == 1
    link = re.search(r'class="button primary" href="([^"]+)">Clear filters', part)
    assert link
    cleared = client.get(unescape(link[1]))
    assert "q=" not in cleared.url.query.decode() and cleared.status_code == 200
    assert ("Look everywhere" in part) == (view != "all")


def test_the_searches_that_are_offered_work_as_they_stand(world: World) -> None:
    client = world.browser()
    part = empty_state(client.get("/inbox", params={"q": "no such words"}).text)
    offered = [unescape(one) for one in re.findall(r'<li><a href="([^"]+)"', part)]
    assert len(offered) >= len(searching.EXAMPLES)
    for one in offered:
        answer = client.get(one)
        assert answer.status_code == 200 and "does not understand" not in answer.text
    found = client.get("/inbox", params={"view": "all", "q": "channel:email"}).text
    assert "Where is my refund?" in found
    assert "Where is my refund?" not in client.get("/inbox", params={"view": "all", "q": "channel:sms"}).text


def test_an_empty_review_says_how_much_was_done_today_and_what_sleeps_longest(world: World) -> None:
    client = world.browser()
    older, younger = world.thread(subject="Old invoice"), world.thread(subject="New invoice")
    done = [world.thread() for _ in range(3)]
    with world.container.database.transaction() as session:
        for number, one in enumerate((older, younger)):
            threads.snooze(session, one, until=utcnow().replace(year=2036 + number))
        for one in done:
            threads.change_state(session, one, state=ThreadState.CLOSED)
        threads.change_state(session, done[0], state=ThreadState.OPEN)
        for one in session.scalars(select(Thread.id).where(Thread.needs_review)).all():
            threads.change_state(session, one, state=ThreadState.TRASH)
    part = empty_state(client.get("/inbox?view=review").text)
    assert "2 done today" in part, "what was taken back is not done"
    assert "Of the 2 snoozed, the oldest is" in part and "Old invoice" in part and "New invoice" not in part
    link = re.search(r'href="([^"]+)">Old invoice', part)
    assert link and "Old invoice" in client.get(unescape(link[1])).text


def test_an_empty_spam_view_tells_what_was_held_lately(world: World) -> None:
    client = world.browser()
    assert "Nothing was held in the last 30 days" in empty_state(client.get("/inbox?view=spam").text)
    with world.container.database.transaction() as session:
        threads.change_state(session, world.ids["thread"], state=ThreadState.SPAM)
        threads.change_state(session, world.ids["thread"], state=ThreadState.OPEN)
    assert "1 was held in the last 30 days; none is now" in empty_state(client.get("/inbox?view=spam").text)


def test_the_lines_to_copy_name_the_listener_and_the_one_in_python_sends_it_a_mail(world: World) -> None:
    client = emptied(world)
    with smtp_sink_server() as sink:
        place = world.container.settings.path("run", "smtp-address")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"127.0.0.1:{sink.port}")
        text = client.get("/inbox").text
        lines = {}
        for name in ("swaks", "python", "import", "demo"):
            shown = re.search(rf'<textarea id="snippet-{name}"[^>]*>(.*?)</textarea>', text, re.DOTALL)
            copied = re.search(rf'data-copy="([^"]*)">Copy<span class="sr"> the line for {name}<', text)
            assert shown and copied and shown[1] == copied[1]
            lines[name] = unescape(shown[1])
        assert f"--server 127.0.0.1:{sink.port} " in lines["swaks"]
        subprocess.run(["/bin/sh", "-c", lines["python"]], check=True, timeout=30)
        assert sink.wait(1)[0].recipients == (world.container.settings.mail_address,)


def test_the_rail_has_every_view_and_counts_what_waits_in_it(world: World) -> None:
    for values in ({"unread": True}, {"unread": True}, {"unread": False, "needs_review": True}, {"unread": False}):
        world.thread(**values)
    page = world.browser().get("/inbox?view=unread").text
    part = page[page.index('<nav class="rail"') : page.index('id="rail-channels"')]
    found = re.findall(
        r'<a href="/inbox\?view=(\w+)" (aria-current="page")?.*?rail-word">([^<]+)<(.*?)</li>', part, re.S
    )
    assert [(view, words) for view, _, words, _ in found] == [(view, words) for view, (words, _) in VIEW_WORDS.items()]
    counts = {view: re.findall(r'class="count">(\d+)<', rest) for view, _, _, rest in found}
    with world.container.database.reading() as session:
        true = overview.counts(session)
    assert counts["unread"] == [str(true["unread"])] and true["unread"] >= 2
    assert counts["inbox"] == [str(true["inbox"])] and counts["done"] == []
    assert [view for view, current, _, _ in found if current] == ["unread"]


def test_the_rail_counts_the_channels_that_have_threads(world: World) -> None:
    client = world.browser()
    rail = re.compile(r'q=channel:(\w+)"[^>]*title="([^"]+)"')
    assert rail.findall(client.get("/inbox").text) == [("email", "Email: 1 in the inbox")]
    world.thread(channel="sms")
    gone = world.thread(channel="whatsapp")
    with world.container.database.transaction() as session:
        threads.change_state(session, gone, state=ThreadState.CLOSED)
    assert rail.findall(client.get("/inbox").text) == [
        ("email", "Email: 1 in the inbox"),
        ("sms", "SMS: 1 in the inbox"),
        ("whatsapp", "WhatsApp: 0 in the inbox"),
    ]


def test_pages_that_list_things_say_what_to_do_while_there_is_none(world: World) -> None:
    client = emptied(world)
    for page in ("/knowledge", "/learning", "/settings/replies", "/settings/intents"):
        assert len(primaries(empty_state(client.get(page).text))) == 1, page
    assert len(primaries(empty_state(client.get("/settings/server", params={"q": "zzz"}).text))) == 1
    assert len(primaries(empty_state(client.get("/settings/audit", params={"area": "nothing"}).text))) == 1


@pytest.mark.parametrize("page", PAGES)
def test_who_is_not_signed_in_comes_back_to_the_page_after_signing_in(world: World, page: str) -> None:
    answer = world.client().get(page, headers=HTML, follow_redirects=False)
    assert answer.status_code == 303
    form = world.client().get(answer.headers["location"]).text
    back = re.search(r'name="next" value="([^"]*)"', form)
    assert back and unescape(back[1]) == page


def said(text: str) -> tuple[str, str]:
    """Code and request id on the page, and that they can be copied."""
    code = re.search(r"Code <code>([a-z-]+)</code>", text)
    request = re.search(r"request <code>([0-9a-f-]{36})</code>", text)
    copied = re.search(r'data-copy="([^"]*)"', text)
    assert code and request and copied, text[:3000]
    assert code[1] in copied[1] and request[1] in copied[1]
    return code[1], request[1]


@pytest.mark.parametrize("page", ADMIN)
def test_a_page_for_admins_says_why_it_is_closed_and_whom_to_ask(world: World, page: str) -> None:
    answer = world.browser("agent@example.org").get(page, headers=HTML)
    code, request = said(answer.text)
    assert (answer.status_code, code) == (403, "not-allowed")
    assert request == answer.headers["x-request-id"]
    assert "for admins" in answer.text and "Ask an admin" in answer.text and len(primaries(answer.text)) == 1


@pytest.mark.parametrize(
    "path",
    ["/inbox/019a0000-0000-7000-8000-000000000000", "/nowhere", "/messages/019a0000-0000-7000-8000-000000000000/raw"],
)
def test_what_is_not_there_says_so_with_a_way_on(world: World, path: str) -> None:
    answer = world.browser().get(path, headers=HTML)
    code, request = said(answer.text)
    assert (answer.status_code, code) == (404, "not-found") and request == answer.headers["x-request-id"]
    assert len(primaries(answer.text)) == 1 and "Go to the inbox" in answer.text


@pytest.mark.parametrize("page", PAGES)
def test_a_database_that_is_gone_is_said_on_every_page_and_tells_nothing_of_the_inside(world: World, page: str) -> None:
    client = world.browser()
    path = str(world.container.settings.path("notifyr.db"))
    with world.container.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE agent_sessions RENAME TO hidden")
    try:
        answer = client.get(page, headers=HTML)
    finally:
        with world.container.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO agent_sessions")
    said(answer.text)
    assert answer.status_code >= 500
    assert (
        not re.search(
            r"Traceback|sqlite|psycopg|agent_sessions|(Operational|Programming)Error|UndefinedTable", answer.text
        )
        and path not in answer.text
    )
    assert client.get(page, headers=HTML).status_code == 200


def test_a_refused_act_keeps_the_page_and_names_code_next_step_and_request(world: World) -> None:
    client = world.browser()
    answer = client.post(f"/inbox/{world.ids['thread']}/act", data={"act": "dance"}, headers=HTML)
    code, request = said(answer.text)
    assert (answer.status_code, code) == (422, "invalid-input") and request == answer.headers["x-request-id"]
    assert "Where is my refund?" in answer.text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("loading", "Models are loading"),
        ("failed", "Reading and replying work"),
        ("partial", "A part of a model is missing; what it does not touch goes on. truncated"),
    ],
)
def test_a_model_that_is_not_ready_is_said_while_the_inbox_works(world: World, state: str, words: str) -> None:
    world.container.bus.set_model("encoder", state=state, reason="truncated", name="x")
    text = world.browser().get("/inbox").text
    assert words in text and "Where is my refund?" in text


def test_without_redis_the_inbox_still_reads_and_says_what_waits(make_settings, sqlite_url: str) -> None:  # type: ignore[no-untyped-def]
    with redis_server() as url:
        container = build(make_settings(redis_url=url, database_url=sqlite_url, encoder="off", generator="off"))
        with serve(create_app(container)) as address:
            world = World(container, create_app(container), address)
            world.fill()
            client = world.browser()
            assert "does not answer" not in client.get("/inbox").text
            with Redis.from_url(url) as admin, contextlib.suppress(RedisError):
                admin.shutdown(nosave=True)
            others = {page: client.get(page).status_code for page in PAGES}
            answer = client.get("/inbox")
            opened = client.get(f"/inbox/{world.ids['thread']}")
            client.close()
    container.close()
    assert answer.status_code == opened.status_code == 200
    assert {page: code for page, code in others.items() if code != 200} == {}
    for text in (answer.text, opened.text):
        assert "Where is my refund?" in text and "the Redis server does not answer" in text

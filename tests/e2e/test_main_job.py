"""The main job: a mail comes in over SMTP, real models label it and draft a reply, one key sends it over SMTP."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import httpx
from playwright.sync_api import Page, expect

from tests.support.installation import Installation, mail
from tests.support.servers import Delivered, SmtpSink, wait_until


def test_a_mail_is_labelled_drafted_accepted_by_a_key_and_arrives_with_threading_headers(
    server: Installation, outside: SmtpSink, new_page: Callable[..., Page]
) -> None:
    asked = mail("Ana Silva <ana@customer.example>", "Where is my order?", "Hello, where is my order 48213?\n\nAna\n")
    server.send(asked)
    page = new_page()
    page.goto("/inbox?view=review")
    row = page.locator(".row", has_text="Where is my order?")
    marks = row.locator(".mark-ready, .mark-check")
    wait_until(lambda: page.reload() and marks.count(), seconds=90, what="the draft")
    expect(row).to_contain_text("order status")
    page.keyboard.press("j")
    page.keyboard.press("o")
    card = page.get_by_role("region", name="Suggested reply")
    expect(card).to_contain_text("We ship within 2 working days")
    with closing(sqlite3.connect(server.settings.path("notifyr.db"))) as database:
        ((trace,),) = database.execute(
            "SELECT s.trace FROM suggestions s JOIN messages m ON m.id = s.message_id WHERE m.from_address = ?",
            ("ana@customer.example",),
        )
    # The real generator wrote; where the guard finds a number in it that no source has, the approved answer stands there.
    drafted = next(step for step in json.loads(trace) if step["stage"] == "draft")
    assert drafted["outcome"] == "ok" and drafted["reason"].startswith("generated with "), drafted
    page.keyboard.press("y")
    expect(page.locator(".toast")).to_contain_text("Sending in")

    def ours() -> list[Delivered]:
        return [one for one in outside.mails if one.recipients == ("ana@customer.example",)]

    arrived = wait_until(ours, seconds=30, what="the reply")[0]
    reply = arrived.message
    assert reply["In-Reply-To"] == asked["Message-ID"]
    assert reply["References"] == asked["Message-ID"]
    assert reply["Subject"] == "Re: Where is my order?"
    assert reply["From"].addresses[0].addr_spec == "support@example.org"
    assert "Auto-Submitted" not in reply
    assert "We ship within 2 working days" in reply.get_content()
    page.goto("/inbox?view=sent")
    page.locator(".row-link").first.click()
    expect(page.locator(".status-sent")).to_contain_text("sent")
    assert len(ours()) == 1


def test_an_answer_of_the_customer_joins_the_thread_and_makes_an_open_suggestion_stale(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    first = mail("Bo Lind <bo@customer.example>", "My parcel", "When does my parcel arrive?\n")
    server.send(first)
    page = new_page()
    page.goto("/inbox?view=review&q=")
    row = page.locator(".row", has_text="My parcel").filter(has_text="Bo Lind")
    marks = row.locator(".mark-ready, .mark-check")
    wait_until(lambda: page.reload() and marks.count(), seconds=90, what="the draft")
    row.locator(".row-link").click()
    version = page.locator("#suggestion input[name=version]").first.get_attribute("value")
    second = mail(
        "Bo Lind <bo@customer.example>",
        "Re: My parcel",
        "Never mind, it came. Thank you!\n",
        In_Reply_To=first["Message-ID"],
        References=first["Message-ID"],
    )
    server.send(second)
    expect(page.locator(".message")).to_have_count(2, timeout=20_000)
    assert version is not None
    expect(page.locator("#suggestion")).not_to_have_class("suggestion face-proposed", timeout=20_000)


def test_a_cached_draft_costs_no_tokens_and_shows_in_the_metrics(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    text = "Good day, could you tell me when my parcel arrives? Thank you very much.\n"
    page = new_page()
    for number in (1, 2):
        server.send(mail(f"Twin {number} <twin{number}@customer.example>", "Parcel twins", text))
    page.goto("/inbox?q=twins")
    marks = page.locator(".row .mark-ready, .row .mark-check")
    wait_until(lambda: page.reload() and marks.count() == 2, seconds=60, what="two drafts")
    page.locator(".row-link").first.click()
    shown = httpx.get(f"{server.url}/metrics", timeout=10).text
    hits = [line for line in shown.splitlines() if line.startswith('notifyr_generation_cache_total{outcome="hit"}')]
    assert hits
    assert float(hits[0].split()[-1]) >= 1
    told = []
    for link in [str(row.get_attribute("href")) for row in page.locator(".row-link").all()]:
        page.goto(link)
        told.append(page.locator("#suggestion header").inner_text())
    assert sum("cached: yes" in text for text in told) == 1

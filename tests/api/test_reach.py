"""`notifyr config check` on real servers that are up, down, and up behind another password."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from assistant.settings import ROOT
from tests.support.qdrant import qdrant_twin
from tests.support.servers import PostgresServer, SmtpSink, free_port, notifyr, s3_environment

Facts = dict[str, dict[str, str]]


def check(folder: Path, **env: str) -> tuple[int, Facts, str]:
    """Exit code, what was found by name, and everything that was printed to a person."""
    env = {"NOTIFYR_DATA_DIR": str(folder), "NOTIFYR_ENCODER": "off", "NOTIFYR_GENERATOR": "off"} | env
    done, plain = notifyr("config", "check", "--json", env=env), notifyr("config", "check", env=env)
    assert done.returncode == plain.returncode, done.stderr + plain.stderr
    document = json.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0)
    return done.returncode, {one["name"]: one for one in document["parts"]}, plain.stdout + plain.stderr


@pytest.fixture
def servers(
    postgres: PostgresServer,
    redis_session_url: str,
    rabbitmq_url: str,
    s3: dict[str, str],
    smtp_sink: SmtpSink,
) -> Iterator[dict[str, str]]:
    """Settings that name one real server each."""
    with qdrant_twin("key-of-tests") as qdrant:
        yield {
            "NOTIFYR_DATABASE_URL": postgres.url("template"),
            "NOTIFYR_REDIS_URL": redis_session_url,
            "NOTIFYR_BROKER_URL": rabbitmq_url,
            "NOTIFYR_QDRANT_URL": qdrant.url,
            "NOTIFYR_BLOBS_URL": f"s3://{s3['bucket']}",
            "NOTIFYR_RELAY_URL": smtp_sink.url,
            **s3_environment(s3),
        }


NAMES = ("database", "Redis", "broker", "vector index", "blob store", "mail relay")


def test_every_server_that_answers_is_named_and_no_password_is_shown(tmp_path: Path, servers: dict[str, str]) -> None:
    code, found, said = check(tmp_path, **servers)
    assert {found[name]["state"] for name in NAMES} == {"reachable"}, found
    assert code == 0
    assert "tests-only" not in said
    assert "key-of-tests" not in said


def test_every_server_that_is_down_is_named_with_what_to_do(tmp_path: Path) -> None:
    port = free_port()
    env = {
        "NOTIFYR_DATABASE_URL": f"postgresql+psycopg://u:hunter2@127.0.0.1:{port}/x",
        "NOTIFYR_REDIS_URL": f"redis://:hunter2@127.0.0.1:{port}/0",
        "NOTIFYR_BROKER_URL": f"amqp://u:hunter2@127.0.0.1:{port}//",
        "NOTIFYR_QDRANT_URL": f"http://:hunter2@127.0.0.1:{port}",
        "NOTIFYR_BLOBS_URL": "s3://bucket",
        "NOTIFYR_RELAY_URL": f"smtp://u:hunter2@127.0.0.1:{port}",
    } | s3_environment({"endpoint": f"http://127.0.0.1:{port}", "key": "k", "secret": "hunter2"})
    code, found, said = check(tmp_path, **env)
    assert code == 2
    for name in NAMES:
        assert (found[name]["state"], found[name]["problem"]) == ("unreachable", "nothing listens there"), found[name]
        assert f"{found[name]['setting']}: {found[name]['fix']}" in said
    assert "hunter2" not in said


def test_a_server_that_takes_the_connection_and_says_nothing_costs_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        _, found, _ = check(tmp_path, NOTIFYR_REDIS_URL=f"redis://{address}/0", NOTIFYR_RELAY_URL=f"smtp://{address}")
    for name in ("Redis", "mail relay"):
        assert found[name]["problem"] == "no answer within 3 seconds"


def test_a_wrong_password_key_or_bucket_is_not_taken_for_a_server_that_is_down(
    tmp_path: Path, servers: dict[str, str]
) -> None:
    wrong = {
        "NOTIFYR_REDIS_URL": _with_password(servers["NOTIFYR_REDIS_URL"], "wrong-word"),
        "NOTIFYR_BROKER_URL": _with_password(servers["NOTIFYR_BROKER_URL"], "wrong-word"),
        "NOTIFYR_QDRANT_URL": _with_password(servers["NOTIFYR_QDRANT_URL"], "wrong-word"),
        "NOTIFYR_DATABASE_URL": servers["NOTIFYR_DATABASE_URL"].replace("template", "no-such-database"),
        "NOTIFYR_BLOBS_URL": "s3://no-such-bucket",
    }
    code, found, said = check(tmp_path, **servers | wrong)
    assert code == 2
    for name in NAMES[:5]:
        assert found[name]["state"] == "unreachable", found[name]
        assert "nothing listens" not in found[name]["problem"], found[name]
    assert "no-such-database" in found["database"]["problem"]
    assert "401" in found["vector index"]["problem"]
    assert "NoSuchBucket" in found["blob store"]["problem"] or "404" in found["blob store"]["problem"]
    assert found["mail relay"]["state"] == "reachable"
    assert "wrong-word" not in said


def _with_password(url: str, word: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:{word}@{host}").geturl()


def test_a_model_file_that_is_missing_or_cut_is_named_with_what_to_do(tmp_path: Path) -> None:
    weights = tmp_path / "encoder"
    shutil.copytree(ROOT / "deploy" / "weights" / "encoder", weights)
    model = max(weights.rglob("*"), key=lambda one: one.stat().st_size if one.is_file() else 0)
    model.write_bytes(model.read_bytes()[:-1000])
    code, found, _ = check(
        tmp_path / "var", NOTIFYR_ENCODER=f"onnx:{weights}", NOTIFYR_GENERATOR=f"llama:{tmp_path}/no.gguf"
    )
    assert code == 2
    assert {found[name]["state"] for name in ("encoder", "generator")} == {"unreachable"}
    assert "NOTIFYR_ENCODER=off" in found["encoder"]["fix"]
    assert "no.gguf" in found["generator"]["problem"]


def test_the_shipped_models_are_found_and_nothing_else_is_needed(tmp_path: Path) -> None:
    done = notifyr("config", "check", "--json", env={"NOTIFYR_DATA_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout
    found = {one["name"]: one["state"] for one in json.loads(done.stdout)["parts"]}
    assert found == dict.fromkeys(NAMES, "embedded") | {"encoder": "reachable", "generator": "reachable"}

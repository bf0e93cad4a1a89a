"""The OpenAPI document: committed, complete, and true (schemathesis tries it against the running API)."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api import openapi
from api.errors import CODES, PROBLEM
from assistant.backends.coordination import RULES
from assistant.services.threads import SORTS, VIEWS
from tests.api.conftest import World

ROOT = Path(__file__).resolve().parents[2]
METHODS = {"get", "post", "put", "patch", "delete"}


def operations(world: World) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in openapi.document(world.app)["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_the_committed_document_is_what_the_routes_say(world: World) -> None:
    committed = (ROOT / "docs" / "openapi.json").read_text()
    assert committed == openapi.render(world.app), "run: scripts/openapi.py"


def test_every_operation_has_an_id_a_summary_and_typed_answers(world: World) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(world)]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations(world):
        at = f"{method} {path}"
        assert operation["summary"] and operation["description"], at
        for status, answer in operation["responses"].items():
            if status == "204":
                continue
            assert answer.get("content"), (at, status)
            if int(status) >= 400 and not (path == "/readyz" and status == "503"):
                assert list(answer["content"]) == [PROBLEM], (at, status)
        if method in {"post", "patch", "put"} and "requestBody" in operation:
            content = operation["requestBody"]["content"]
            if list(content) == ["multipart/form-data"]:
                assert content["multipart/form-data"]["schema"]["additionalProperties"] is False, at
                continue
            schema = content["application/json"]["schema"]
            body = openapi.document(world.app)["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            assert body["additionalProperties"] is False and body["examples"], at
        assert operation["security"] == [] or path.startswith(("/api/", "/metrics")), at


def test_views_sorts_and_codes_in_the_document_are_those_of_the_code(world: World) -> None:
    listing = openapi.document(world.app)["paths"]["/api/v1/threads"]["get"]["parameters"]
    by_name = {parameter["name"]: parameter["schema"] for parameter in listing}
    assert by_name["view"]["enum"] == list(VIEWS)
    assert by_name["sort"]["enum"] == list(SORTS)
    assert set(openapi.document(world.app)["x-problem-codes"]) == set(CODES)


def test_every_error_code_is_lower_case_words(world: World) -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in CODES)


def test_scopes_and_reasons_in_the_document_are_those_of_the_code(world: World) -> None:
    from assistant.services.access import SCOPES
    from assistant.services.suggestions import REJECT_REASONS

    schemas = openapi.document(world.app)["components"]["schemas"]
    assert schemas["ApiKeyCreate"]["properties"]["scopes"]["items"]["enum"] == list(SCOPES)
    assert schemas["SuggestionReject"]["properties"]["reason"]["enum"] == ["", *REJECT_REASONS]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["key", "cookie"])
@pytest.mark.checklist(28)
def test_schemathesis_finds_no_lie_in_the_document(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Every check, 12 examples an operation, links followed. SCHEMATHESIS_EXAMPLES asks for more (nightly).

    A cookie opens the same operations as a key, by another door: a third of the examples shows that.
    """
    examples = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12")) // (1 if way == "key" else 3)
    for name, rule in list(RULES.items()):
        monkeypatch.setitem(RULES, name, replace(rule, amount=10**9))
    schema = tmp_path / "openapi.json"
    schema.write_text(json.dumps(_only(way, copy.deepcopy(openapi.document(world.app)))))
    if way == "key":
        headers = {"Authorization": world.program().headers["authorization"]}
    else:
        browser = world.browser()
        headers = {"Cookie": f"notifyr={browser.cookies['notifyr']}", "X-CSRF-Token": browser.headers["x-csrf-token"]}
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f"""
        [generation]
        max-examples = {examples}
        [checks.positive_data_acceptance]
        # valid in form, yet about something absent, changed, decided, a made-up cursor, or without the right to call
        expected-statuses = ["2xx", 400, 401, 403, 404, 409, 412]
        [checks.negative_data_rejection]
        expected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429]

        # dates in the past, rules over several fields, what may stand in a name or in braces, and a thread whose only
        # received message was split off (nobody is left to write to) are beyond a schema
        [[operations]]
        include-operation-id = [
            "changeThread", "createKey", "mergeThread", "splitMessage", "sendMessage", "putLabel", "writeSavedReply", "changeSavedReply",
        ]
        checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 412, 422]
        """
    )
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            f"--config-file={config}",
            "run",
            str(schema),
            f"--url={world.url}",
            *[f"--header={name}: {value}" for name, value in headers.items()],
            "--seed=7",
            "--checks=all",
            "--no-color",
            "--continue-on-failure",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=580,
        check=False,
    )
    (tmp_path / "report.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


def _only(way: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document for one kind of caller, without what would end its own access.

    Repeating a request under the same key has its own tests: random requests would reuse keys and get 422 for it.
    """
    ends = {"signOut", "changePassword", "disableAgent"}
    for path, item in list(document["paths"].items()):
        for operation in item.values():
            if operation["operationId"] in ends:
                del document["paths"][path]
                break
            security = operation["security"]
            operation["security"] = [] if {} in security else [one for one in security if way in one] or security
            operation["parameters"] = [p for p in operation.get("parameters", []) if p["name"] != "Idempotency-Key"]
    # The tool sends a fixed Cookie header whatever a scheme in "cookie" says; as a header it can also leave it out.
    document["components"]["securitySchemes"]["cookie"] = {"type": "apiKey", "in": "header", "name": "Cookie"}
    return document

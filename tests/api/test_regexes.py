"""Every regular expression of the program takes linear time: 100 kB made to hurt it, under 100 ms each (of this thread).

The list is generated from the source, so a new expression is in it the moment it is written.
"""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "assistant", "channels", "models", "pipelines")
SIZE = 100_000
SECONDS = 0.1
CALLS = {"compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer"}
RULES = ROOT / "pipelines" / "stages" / "screen_rules.json"
OUTGOING = ROOT / "pipelines" / "outgoing_rules.json"
MADE = {
    "api/commands/demo.py: _FIELD % re.escape(name)": "over our own samples",
    "assistant/services/knowledge.py: pattern": "a full stop with a blank, or a blank",
    "assistant/services/suggestions.py: f'(?<!\\\\w){re.escape(said)}(?!\\\\w)'": "plain words",
    "models/heads/evidence.py: f'(?<!\\\\w){re.escape(word)}(?!\\\\w)'": "plain words, four of them",
    "models/heads/evidence.py: re.escape(word)": "plain words",
    "models/heads/wording.py: re.escape(phrase)": "plain words",
    "models/heads/wording.py: f'(?<!\\\\w){re.escape(longest)}\\\\*'": "over our own list of phrases",
    "models/heads/wording.py: f'(?<!\\\\w){words}(?!\\\\w)'": "over a sentence of 1,200 characters at most",
    "models/reading.py: f'[{_LATIN_LETTERS}][̀-ͯ]*[{_POSING}]|[{_POSING}][̀-ͯ]*[{_LATIN_LETTERS}]'": "three sets that share no letter",
    "models/reading.py: f'[{_POSING}]'": "one character",
    "models/reading.py: f'[^\\\\W\\\\d_{_LATIN_LETTERS}{_POSING}]'": "one character",
    "models/reading.py: f'[{_POSING}\u0300-\u036f]{{2,}}'": "one set, over a word",
    "pipelines/outgoing.py: '|'.join((f'(?:{pattern})' for pattern in patterns))": "of the rules, which are in the list",
    "pipelines/stages/screen.py: '|'.join((f'(?:{pattern})' for pattern in patterns))": "of the rules, which are in the list",
    "pipelines/stages/screen.py: pattern": "of the rules, which are in the list",
}
"""Expressions that are made while the program runs: file and source -> why none of them is slow."""


def _calls() -> Iterator[tuple[Path, str, ast.Call, str | bytes | None]]:
    """File, its source and each `re` call in it, with the pattern where it can be read: a literal, or joined from some."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text()
            tree = ast.parse(source)
            assert not [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) and one.module == "re"], path
            names: dict[str, str] = {}
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    value = node.value
                    if isinstance(value, ast.Call) and ast.unparse(value.func) == "re.compile":
                        value = value.args[0]
                    if isinstance(said := _literal(value, names), str):
                        names[node.targets[0].id] = said
            for node in ast.walk(tree):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr in CALLS:
                    yield path, source, node, _literal(node.args[0], names)


def _patterns() -> Iterator[tuple[str, str | bytes, int, str]]:
    """File and line, pattern, flags and how it is used: of the source, and of the rules that are data."""
    for path, source, node, pattern in _calls():
        if pattern is not None and isinstance(node.func, ast.Attribute):
            flags = sum(
                int(getattr(re, word))
                for word in {"I", "M", "S", "X", "IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE"}
                if re.search(rf"\bre\.{word}\b", ast.unparse(node))
            )
            ways = {node.func.attr} if node.func.attr != "compile" else _ways(source, node.lineno)
            for way in sorted(ways):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", pattern, flags, way
    rules = json.loads(RULES.read_text())
    yield "urgent", rules["urgent"], re.I, "finditer"
    for rule in rules["rules"]:
        for number, pattern in enumerate(rule.get("says", [])):
            yield f"{rule['name']} {number}", pattern, re.I, "finditer"
        if "sender" in rule:
            yield rule["name"], rule["sender"], re.I, "fullmatch"
    for rule in json.loads(OUTGOING.read_text())["rules"]:
        for number, pattern in enumerate([*rule.get("says", []), *rule.get("also", []), *rule.get("links_to", [])]):
            yield f"outgoing {rule['name']} {number}", pattern, re.I, "finditer"


def _ways(source: str, line: int) -> set[str]:
    """How a compiled pattern is used where it is kept under a name; from anywhere in a text when that is not seen."""
    name = re.match(r"(?:    )?(\w+)\b.*= re\.compile", source.splitlines()[line - 1])
    found = (
        set(re.findall(rf"\b{name[1]}\.(match|fullmatch|search|sub|split|findall|finditer)\(", source))
        if name
        else set()
    )
    return {way if way in {"match", "fullmatch"} else "finditer" for way in found} or {"finditer"}


def _literal(node: ast.expr, names: dict[str, str]) -> str | bytes | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value
    if isinstance(node, ast.Attribute) and node.attr == "pattern":
        return _literal(node.value, names)
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.JoinedStr):
        parts = [_literal(part.value if isinstance(part, ast.FormattedValue) else part, names) for part in node.values]
        return "".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    return None


def _attacks(pattern: str | bytes) -> list[str]:
    """Long runs of what the pattern itself is made of, with an end that makes it fail late."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    words = set(re.findall(r"[A-Za-z0-9@:<>\"'/.,;=\-\[\]() ]{1,12}", text))
    units = {
        "a",
        "0",
        " ",
        "\n",
        "\t",
        "-",
        ".",
        "@",
        "a@",
        "<",
        ">",
        '"',
        "\\",
        "=",
        "=?",
        "a:",
        " \n",
        "> ",
        "a ",
        ".a",
        "a.",
        "[",
        "(",
        ",",
    }
    runs = [unit * (SIZE // len(unit)) for unit in sorted(units | words)]
    return [run + end for run in runs for end in ("", "\0", "!x")]


@pytest.mark.parametrize(
    ("where", "pattern", "flags", "way"), [pytest.param(*found, id=f"{found[0]}-{found[3]}") for found in _patterns()]
)
@pytest.mark.timeout(300)
@pytest.mark.checklist(7)
def test_a_hostile_text_costs_no_more_than_its_length(where: str, pattern: str | bytes, flags: int, way: str) -> None:
    compiled = re.compile(pattern, flags)
    for attack in _attacks(pattern):
        # From short to long, so that an expression that explodes is caught while it is still cheap; one end is enough for the long.
        for size in (2_000, 20_000, *([SIZE] if attack.endswith("\0") else [])):
            spent = _spend(compiled, way, attack[:size] + attack[-2:])
            if spent < SECONDS:
                continue
            # A machine may be slow; what grows with the square takes sixteen times as long for four times the text.
            quarter = _spend(compiled, way, attack[: size // 4] + attack[-2:])
            assert spent < 8 * quarter, f"{where}: {spent:.2f} s for {size} of {attack[:12]!r}"
            assert spent < 10 * SECONDS, f"{where}: {spent:.2f} s for {size} of {attack[:12]!r}"


def _spend(compiled: re.Pattern[Any], way: str, text: str) -> float:
    subject = text.encode() if isinstance(compiled.pattern, bytes) else text
    started = time.thread_time()
    if way in {"match", "fullmatch"}:
        getattr(compiled, way)(subject)
    else:
        for number, _ in enumerate(compiled.finditer(subject)):
            if number > 20_000:
                break
    return time.thread_time() - started


@pytest.mark.checklist(7)
def test_the_list_is_not_empty() -> None:
    found = list(_patterns())
    assert len(found) >= 100
    assert {"urgent", "no-reply", "opt-out-request 0", "outgoing shortener 0"} <= {where for where, *_ in found}


@pytest.mark.checklist(7)
def test_every_expression_is_in_the_list_or_said_to_be_harmless() -> None:
    """One that is put together while the program runs would else be tried by nobody."""
    made = {
        f"{path.relative_to(ROOT)}: {ast.unparse(node.args[0])}"
        for path, _, node, pattern in _calls()
        if pattern is None
    }
    assert made == set(MADE)

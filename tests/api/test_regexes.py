"""Every regular expression of the program takes linear time: 100 kB made to hurt it, under 100 ms each (of this thread).

The list is generated from the source, so a new expression is in it the moment it is written.
"""

from __future__ import annotations

import ast
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


def _patterns() -> Iterator[tuple[str, str | bytes, int, str]]:
    """File and line, pattern, flags and how it is used, of every `re` call with a literal, also one joined from literals."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text()
            tree = ast.parse(source)
            names = {
                target.id: node.value.value
                for node in tree.body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
                for target in node.targets
                if isinstance(target, ast.Name) and isinstance(node.value.value, str)
            }
            for node in ast.walk(tree):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr in CALLS:
                    pattern = _literal(node.args[0], names)
                    if pattern is not None:
                        flags = sum(
                            int(getattr(re, word))
                            for word in {"I", "M", "S", "X", "IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE"}
                            if re.search(rf"\bre\.{word}\b", ast.unparse(node))
                        )
                        ways = {node.func.attr} if node.func.attr != "compile" else _ways(source, node.lineno)
                        for way in sorted(ways):
                            yield f"{path.relative_to(ROOT)}:{node.lineno}", pattern, flags, way


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
@pytest.mark.timeout(120)
@pytest.mark.checklist(7)
def test_a_hostile_text_costs_no_more_than_its_length(where: str, pattern: str | bytes, flags: int, way: str) -> None:
    compiled = re.compile(pattern, flags)
    for attack in _attacks(pattern):
        # From short to long, so that an expression that explodes is caught while it is still cheap.
        for size in (2_000, 20_000, SIZE):
            spent, quarter = (_spend(compiled, way, attack[:part] + attack[-2:]) for part in (size, size // 4))
            # A machine may be slow; what grows with the square takes sixteen times as long for four times the text.
            assert spent < max(SECONDS, 8 * quarter), f"{where}: {spent:.2f} s for {size} of {attack[:12]!r}"
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
    assert len(list(_patterns())) >= 30

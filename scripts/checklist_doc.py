"""Write the table of docs/reliability.md that names, for every line of the security checklist, the tests that show it.

A test says so itself: `@pytest.mark.checklist(17)`, on the test or as the module's `pytestmark`. With --check nothing is
written; a line without a test, a test of an unknown line or a stale table is an error.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- checklist: written by scripts/checklist_doc.py -->", "<!-- end of checklist -->"

LINES = {
    1: "Any bytes are read as a mail without an exception, and the raw bytes stay.",
    2: "Size, headers, parts, depth, addresses and parameters are capped before anything parses; one more is quarantined or refused.",
    3: "A mail is parsed in a child with 5 s of CPU, 512 MiB and no network; a bomb costs that child only.",
    4: "Stored text is valid UTF-8 in NFC without controls; marks that hide or turn text round are shown, and no address has one.",
    7: "Every regular expression takes linear time: 100 kB made to hurt it, under 100 ms.",
    8: "Passwords are argon2id; an unknown and a known address get the same answer in the same time.",
    9: "Signing in, invitations, resets and keys are limited per account and network; nobody is kept out longer than 15 minutes.",
    10: "Links have 256 bits, are stored as hashes, work once, expire, and die at a password change.",
    11: "API keys are stored as hashes, scoped and expiring; no Authorization header breaks anything.",
    15: "The session cookie is hidden from scripts and bound to this host; its id is new at sign-in and at a change of role.",
    16: "Signing out, a new password and a closed account end pages, sockets and keys within a second.",
    17: "Every change refuses a missing page token, a foreign origin and JSON in disguise.",
    18: "The live socket checks origin and session before the first frame, and caps rate, size, idle time and lifetime.",
    19: "The route table equals the declared list; every route is guarded or listed as public.",
    20: "Every route by every kind of caller on own, absent and foreign ids: absent and foreign look the same.",
    21: "Sockets, search, counts, attachments and exports go through the same access functions; the api loads nothing by itself.",
    22: "Unknown fields are refused by every schema; what only the server sets cannot be set.",
    23: "Views, sorts and filters are fixed lists; every value is a bound parameter.",
    24: "Patterns of LIKE, globs and subscriptions carry no meaning that a caller chose.",
    25: "A repeated POST under the same Idempotency-Key acts once; twins, changed bodies and failures have their own answers.",
    26: "Pages and batches are bounded; the worst allowed query stays under a second.",
    27: "Errors come from a fixed vocabulary and tell nothing about the inside.",
    28: "schemathesis finds no 5xx and no status that the OpenAPI document does not name.",
    36: "No variant of SMTP smuggling passes in or out.",
    38: "No header takes CR, LF, NUL or another line end; From belongs to the profile; Bcc is never written.",
    39: "The SMTP listener holds under slow, half-open, huge and endless clients.",
    42: "A stranger who answers into a thread learns nothing of it and is marked.",
    44: "Attachments are typed by their bytes and are only ever downloads.",
    45: "The HTML of a mail is shown without scripts and without any request that leaves.",
    46: "The sanitiser keeps nothing that acts and changes nothing when it is run again.",
    47: "htmx evaluates nothing, asks only this server, and is off round a stranger's words; no page allows inline code.",
    48: "Templates escape everything but the sanitiser's own type; what people write is never a template.",
    49: "A link names its real host when its words name another; no route of ours sends a browser elsewhere.",
    57: "Names of files are made by us or are only names; nothing leaves its folder, and files are their owner's only.",
    59: "Every statement has bound parameters, what belongs to an agent is asked for by agent, and a role without DDL suffices.",
    60: "Redis is on loopback behind a password; keys are namespaced; flushing it loses speed only.",
    61: "Secrets seeded in twelve places reach no log, answer, metric, table, process list or repository.",
    64: "One client fetches foreign URLs: fixed schemes and ports, pinned public addresses, three checked redirects, bounded.",
    66: "The listening sockets are the declared ones, on loopback; metrics, docs and debug pages are not public.",
    67: "Dependencies are exact and hash-locked; start-up hooks are listed; importing us touches no network.",
    68: "The interpreter's behaviour is tried at every start; one that fails is refused.",
}
"""The lines of the checklist that this release answers for, and what each promises."""


def marked() -> dict[int, list[str]]:
    """Line -> tests that show it, as `path::name`."""
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        where = path.relative_to(ROOT).as_posix()
        of_module = [
            number
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
            for number in _numbers(node.value)
        ]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in {*of_module, *(one for mark in node.decorator_list for one in _numbers(mark))}:
                    found.setdefault(number, []).append(f"{where}::{node.name}")
    return found


def _numbers(node: ast.expr) -> list[int]:
    return [
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.checklist"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    ]


def table(found: dict[int, list[str]]) -> str:
    rows = ["| line | what it promises | tests |", "|---|---|---|"]
    for number, promise in LINES.items():
        files: dict[str, list[str]] = {}
        for one in found.get(number, []):
            path, _, name = one.partition("::")
            files.setdefault(path, []).append(name)
        shown = "; ".join(
            f"[{path.removeprefix('tests/')}](../{path}): {', '.join(f'`{name}`' for name in names)}"
            for path, names in files.items()
        )
        rows.append(f"| {number} | {promise} | {shown} |")
    return "\n".join(rows)


def main() -> int:
    found = marked()
    wrong = [f"line {number} of the checklist has no test" for number in LINES if number not in found]
    wrong += [
        f"{tests[0]} is marked with {number}, which no line has"
        for number, tests in found.items()
        if number not in LINES
    ]
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if new != text:
            wrong.append("docs/reliability.md is out of date: make docs")
    elif not wrong:
        PAGE.write_text(new)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

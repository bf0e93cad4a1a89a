"""What the source itself promises: who may load, how statements and templates are made, what Redis is asked, what is installed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from api.security import PAGE_POLICY
from assistant.settings import ROOT

PACKAGES = ("api", "assistant", "channels", "models", "pipelines")
TEMPLATES = ROOT / "api" / "inbox" / "templates"


@cache
def sources() -> dict[str, ast.Module]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in files}


def calls(*, under: str = "") -> Iterator[tuple[str, int, ast.Call, str]]:
    """Path, line, call and the dotted name of what is called."""
    for path, tree in sources().items():
        if path.startswith(under):
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    yield path, node.lineno, node, ast.unparse(node.func)


# -- 21, 23, 24, 59: what is loaded, and how it is asked for


@pytest.mark.checklist(21)
def test_routes_and_pages_load_nothing_past_the_access_functions() -> None:
    """Rows come from the services, whose functions know who may see them. The command line acts for the owner."""
    raw = re.compile(
        r"(session|connection)\.(get|scalar|scalars|execute|query|add|delete|merge)$|^(select|insert|update|delete)$"
    )
    found = [
        f"{path}:{line} {name}"
        for path, line, _, name in calls(under="api/")
        if not path.startswith("api/commands/") and raw.search(name)
    ]
    # The readiness probe and `notifyr config check` ask `SELECT 1`: no row of anybody.
    assert [one for one in found if not one.startswith(("api/routers/health.py", "api/reach.py"))] == [], (
        "use a function of assistant/services"
    )


@pytest.mark.checklist(23, 59)
def test_no_statement_is_made_of_text_that_varies() -> None:
    found = []
    for path, line, node, name in calls():
        if path.startswith("assistant/db/migrations"):
            continue
        short = name.rpartition(".")[2]
        if short in {"text", "literal_column", "exec_driver_sql"} and name.rpartition(".")[0] in {
            "",
            "sqlalchemy",
            "sa",
            "connection",
            "session",
        }:
            inside = _imports(path, short) or short == "exec_driver_sql"
            if inside and node.args and not _constant(node.args[0]):
                found.append(f"{path}:{line} {name}")
        if short in {"execute", "executemany"} and node.args and _varies(node.args[0]):
            found.append(f"{path}:{line} {ast.unparse(node)}")
    assert found == []


def _constant(statement: ast.expr) -> bool:
    if isinstance(statement, ast.IfExp):
        return _constant(statement.body) and _constant(statement.orelse)
    if isinstance(statement, ast.Name):
        return statement.id.lstrip("_").isupper()  # a constant of the module, by the naming rule
    return isinstance(statement, ast.Constant)


def _varies(statement: ast.expr) -> bool:
    """Whether a text has a hole that is not a constant of the module (pragmas of SQLite take no parameters)."""
    if not isinstance(statement, ast.JoinedStr):
        return isinstance(statement, ast.BinOp)
    if isinstance(statement.values[0], ast.Constant) and str(statement.values[0].value).startswith("PRAGMA "):
        return False
    holes = [one.value for one in statement.values if isinstance(one, ast.FormattedValue)]
    return not all(isinstance(hole, ast.Name) and hole.id.isupper() for hole in holes)


def _imports(path: str, name: str) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("sqlalchemy")
        and name in {a.name for a in node.names}
        for node in ast.walk(sources()[path])
    )


_LIKE = frozenset("like ilike icontains istartswith iendswith not_like not_ilike notlike notilike".split())


@pytest.mark.checklist(24)
def test_like_is_always_escaped() -> None:
    """Columns of tables, of what was selected from them under another name, and of functions over them."""
    found, seen = [], 0
    for path, line, node, name in calls(under="assistant/"):
        column, _, asked = name.rpartition(".")
        of_sql = re.search(r"(^|[^\w.])[A-Z]\w+\.\w+$|\.c\.\w+$|^func\.", column)
        if asked in _LIKE or (asked in {"contains", "startswith", "endswith"} and of_sql):
            seen += 1
            words = {one.arg: ast.unparse(one.value) for one in node.keywords}
            # The one function that takes the meaning from a word by itself has a test: test_no_sign_of_a_search_means_more.
            by_hand = path == "assistant/services/mentions.py" and words.get("escape") == "'/'"
            constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
            if not (words.get("autoescape") == "True" or by_hand or constant):
                found.append(f"{path}:{line} {name}")
    assert found == [] and seen >= 12


@pytest.mark.checklist(24, 60)
def test_redis_is_asked_for_keys_by_their_whole_name() -> None:
    """No pattern of a caller reaches Redis: no KEYS, SCAN, pattern subscription; the one script is a constant."""
    scripts, patterns = [], []
    for path, line, node, name in calls():
        if not path.startswith(("assistant/", "pipelines/", "api/")):
            continue
        last = name.rpartition(".")[2]
        on_redis = re.search(r"(redis|client|pipe)\.\w+$", name, re.I)
        if last in {"psubscribe", "scan_iter", "hscan_iter", "sscan_iter", "flushall", "flushdb"} or (
            on_redis and last in {"keys", "scan"}
        ):
            patterns.append(f"{path}:{line} {name}")
        if on_redis and last in {"eval", "evalsha", "register_script"}:
            scripts.append((path, ast.unparse(node.args[0])))
    assert patterns == []
    for path, script in scripts:
        constants = {
            ast.unparse(target)
            for top in sources()[path].body
            if isinstance(top, ast.Assign) and isinstance(top.value, ast.Constant)
            for target in top.targets
        }
        assert script in constants, f"{path}: a script is a constant, its words are arguments"


# -- 47, 48: pages


@pytest.mark.checklist(47)
def test_htmx_evaluates_nothing_and_asks_only_this_server() -> None:
    base = (TEMPLATES / "base.html").read_text()
    config = re.search(r"htmx-config\" content='([^']*)'", base)
    assert config is not None
    vendored = (ROOT / "api/inbox/static/vendor/htmx.min.js").read_text()
    known = {*re.findall(r"(\w+):", vendored[vendored.index("config={") :].partition("}")[0])}
    given = json.loads(config[1])
    assert set(given) <= known, "htmx reads no such key, and says nothing of it"
    # This version has no switch for evaluating: the policy of the page forbids it (tests/e2e/test_frame.py tries).
    assert given["mode"] == "same-origin"
    assert "script-src 'self';" in PAGE_POLICY and "unsafe" not in PAGE_POLICY
    assert "hx-ignore" in vendored, "the attribute that switches htmx off has another name in this version"
    strangers = re.compile(r"\{\{\s*(?:m|n)\.(?:text|new_text|html)\b")
    for path in TEMPLATES.glob("*.html"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in strangers.finditer(line):
                opened = line[: match.start()].rpartition("<")[2]
                assert "hx-ignore" in opened or opened.startswith("textarea"), (
                    f"{path.name}:{number}: {line.strip()[:80]}"
                )


@pytest.mark.checklist(48)
def test_templates_are_ours_and_escape_everything() -> None:
    made = [
        (path, ast.unparse(node))
        for path, _, node, name in calls()
        if name.rpartition(".")[2] in {"Environment", "SandboxedEnvironment"}
    ]
    assert [path for path, _ in made] == ["api/inbox/shell.py"]
    assert "autoescape=True" in made[0][1] and "StrictUndefined" in made[0][1]
    from_words = [
        f"{path}:{line}"
        for path, line, _, name in calls()
        if name.rpartition(".")[2] in {"from_string", "Template", "compile_expression"}
        and not name.startswith("puremagic.")
    ]
    assert from_words == [], "what people write is never a template"
    unescaped = [f"{path}:{line}" for path, line, _, name in calls() if name.rpartition(".")[2] == "Markup"]
    assert unescaped == [], "only the sanitiser's SafeHtml may be shown unescaped"
    assert not re.search(r"\|\s*safe\b|\|\s*attr\b", "".join(path.read_text() for path in TEMPLATES.glob("*.html")))


# -- 67: what is installed


@pytest.mark.checklist(67)
@pytest.mark.parametrize("name", ["pip", "runtime", "models", "dev", "compile", "llama", "train"])
def test_every_dependency_is_exact_and_hash_locked(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    wanted = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert wanted
    for line in wanted:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[A-Za-z0-9.+!-]+ ?(;[^\\]*)? ?\\?$", line), line
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n" + text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block.partition("\n")[0])
    assert not re.search(r"https?://|git\+|--(extra-)?index-url|--trusted-host", re.sub(r"#.*", "", text))


@pytest.mark.checklist(67)
@pytest.mark.parametrize("version", ["3.11.0", "3.11.2", "3.11.14", "3.12.3", "3.13.5"])
def test_the_lock_has_what_every_python_needs_that_we_support(version: str) -> None:
    """One Python makes the lock, and packages ask for more on others: on Debian 12 (3.11.2) redis asks for async-timeout."""
    names = re.compile(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[a-z,]+\])?==")
    locked = {
        canonicalize_name(name)
        for file in ("runtime", "dev", "models", "llama")
        for name in names.findall((ROOT / "requirements" / f"{file}.txt").read_text())
    }
    python = {"python_version": ".".join(version.split(".")[:2]), "python_full_version": version, "extra": ""}
    missing = [
        f"{name} asks for {asked}"
        for name in sorted(locked)
        for asked in map(Requirement, _asked_by(name))
        if asked.marker is not None and asked.marker.evaluate(python) and canonicalize_name(asked.name) not in locked
    ]
    assert missing == [], "name it in requirements/older.in and run: make lock"


def _asked_by(name: str) -> list[str]:
    """What an installed package asks for; nothing of one that only other machines have."""
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []


@pytest.mark.checklist(67)
def test_the_installer_takes_only_what_is_locked() -> None:
    script = (ROOT / "scripts" / "bootstrap.sh").read_text()
    assert "--require-hashes" in script


@pytest.mark.checklist(67)
def test_what_runs_at_every_start_of_python_is_listed() -> None:
    """A `.pth` file with an import line runs before anything of ours; an entry point runs when its host asks."""
    site = Path(pytest.__file__).resolve().parents[1]
    hooks = {path.name for path in site.glob("*.pth") if re.search(r"(?m)^import[ \t]", path.read_text())}
    assert hooks <= {"__editable__.notifyr-0.1.0.pth", "distutils-precedence.pth"}, (
        "a new start-up hook: read it, then list it"
    )
    assert not list(site.glob("sitecustomize*")) + list(site.glob("usercustomize*"))
    ours = {one.name: one.value for one in entry_points(group="console_scripts") if one.value.startswith(PACKAGES)}
    assert ours == {"notifyr": "api.cli:main"}
    plugins = {one.name for one in entry_points(group="pytest11")}
    assert plugins <= {
        "anyio",
        "hypothesispytest",
        "platformdirs",
        "playwright",
        "schemathesis",
        "time_machine",
        "timeout",
        "valkey",
        "xdist",
        "xdist.looponfail",
    }


@pytest.mark.checklist(67)
def test_importing_every_module_touches_no_network() -> None:
    modules = [
        path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        for path in sources()
        if not path.startswith(("models/training", "assistant/db/migrations"))
    ]
    script = (
        "import sys\n"
        "def hook(event, args):\n"
        "    if event in {'socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.bind', 'socket.sendto'}:\n"
        "        raise SystemExit(f'{event} {args[1:]}')\n"
        "sys.addaudithook(hook)\n"
        "import importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]

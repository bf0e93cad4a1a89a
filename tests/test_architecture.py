"""The house rules that a machine can check. Each test names the rule, and lists every place that breaks it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import grimp
import pytest

from assistant.failpoints import FAILPOINTS
from assistant.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "assistant", "channels", "models", "pipelines")
HEAVY = ("torch", "transformers", "onnxruntime", "llama_cpp", "qdrant_client", "qdrant_edge", "sklearn", "moto")


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of ours by its path from the root."""
    files = chain.from_iterable((ROOT / package).rglob("*.py") for package in PACKAGES)
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(files)}


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted name and line of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Module and line of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


def offenders(pattern: str, *, allowed: tuple[str, ...] = ()) -> list[str]:
    """Calls whose dotted name matches, as `path:line name`, outside the allowed paths."""
    matcher = re.compile(pattern)
    return [
        f"{path}:{line} {name}"
        for path, tree in sources().items()
        if not path.startswith(allowed or "\0")
        for name, line in calls(tree)
        if matcher.search(name)
    ]


def test_imports_only_go_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_no_two_modules_import_each_other_not_even_for_types() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None, exclude_type_checking_imports=False)
    ours = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_only_the_unit_of_work_commits() -> None:
    assert offenders(r"\.commit$", allowed=("assistant/db/session.py",)) == []


def test_time_and_identity_come_from_the_clock() -> None:
    pattern = (
        r"(^|\.)(utcnow|now|today)$|^time\.(time|time_ns|monotonic|monotonic_ns|perf_counter)$|(^|\.)uuid\d$|^uuid\."
    )
    found = offenders(pattern, allowed=("assistant/clock.py",))
    assert [place for place in found if not re.search(r" (clock\.)?utcnow$", place)] == []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "utcnow" for alias in node.names):
                assert node.module == "assistant.clock", path


def test_only_the_edges_read_the_environment() -> None:
    # health.py asks for the variable of prometheus_client itself, forks.py gives a child the environment it is handed
    allowed = {"assistant/settings.py", "api/cli.py", "api/commands/run.py", "api/forks.py", "api/routers/health.py"}
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        if path not in allowed
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv", "os.putenv"}
    ]
    assert found == []


def test_nothing_prints_but_the_console() -> None:
    assert offenders(r"^print$|^sys\.(stdout|stderr)\.write$", allowed=("api/console.py",)) == []


@pytest.mark.checklist(64)
def test_one_outgoing_http_client() -> None:
    clients = {"httpx", "requests", "urllib.request", "aiohttp", "urllib3"}
    found = [
        f"{path}:{line} {name}"
        for path, tree in sources().items()
        if path not in {"channels/support/http.py", "api/commands/run.py"}
        for name, line in imports(tree)
        if name in clients
    ]
    assert found == []


def test_every_setting_is_described_and_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    missing = [
        name
        for name, field in Settings.model_fields.items()
        if not field.description or f"`{PREFIX}{name.upper()}`" not in page
    ]
    assert missing == [], "run: make docs"


def test_the_generated_settings_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/settings_doc.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_failpoint_is_used_and_every_used_one_is_listed() -> None:
    used: set[str] = set()
    for path, tree in sources().items():
        if path == "assistant/failpoints.py":
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name, value = ast.unparse(node.func), str(node.args[0].value)
            if name.endswith("failpoint"):
                used.add(value)
            if name.endswith("committing"):
                used |= {f"{value}.before_commit", f"{value}.after_commit"}
    assert used - FAILPOINTS == set()
    assert FAILPOINTS - used == set()


def test_the_packages_with_adapters_are_empty_at_the_top() -> None:
    for package in ("channels", "models"):
        body = sources()[f"{package}/__init__.py"].body
        assert all(isinstance(node, ast.Expr) for node in body), f"{package}/__init__.py holds code"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    modules = [
        path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        for path in sources()
        if not path.startswith(("models/training", "assistant/db/migrations"))
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is started by itself")
def test_what_our_processes_share_starts_no_thread() -> None:
    """One thread, of numpy for instance, and no process could be a fork: twice the memory, and a slower start."""
    script = "from api.forks import can_fork, preload; preload(); print(can_fork())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


@pytest.mark.parametrize(
    ("floor", "strangers"),
    [
        ("assistant", ("fastapi", "starlette", "celery", "kombu", "typer")),
        ("channels", ("fastapi", "starlette", "celery", "kombu", "sqlalchemy", "redis")),
        ("models", ("fastapi", "starlette", "celery", "kombu", "sqlalchemy", "redis")),
        ("pipelines", ("fastapi", "starlette", "uvicorn", "typer")),
    ],
)
def test_importing_a_floor_brings_nothing_of_the_floors_above(floor: str, strangers: tuple[str, ...]) -> None:
    modules = [
        path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        for path in sources()
        if path.startswith(f"{floor}/") and not path.startswith(("models/training", "assistant/db/migrations"))
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {strangers!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_relationships_never_load_by_themselves() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "relationship"
        and not any(k.arg == "lazy" and ast.unparse(k.value) == "'raise'" for k in node.keywords)
    ]
    assert found == []


@pytest.mark.checklist(48)
def test_templates_never_switch_escaping_off() -> None:
    templates = [p for p in ROOT.glob("api/**/*") if p.suffix in {".html", ".jinja", ".j2", ".xml", ".txt"}]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in templates
        for match in re.finditer(r"\|\s*safe\b|autoescape\s+(false|off)", path.read_text())
    ]
    assert found == []


def test_no_tests_folder_is_a_package_but_the_one_whose_browser_must_end_with_it() -> None:
    assert [str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("__init__.py")] == ["tests/e2e/__init__.py"]


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in done.stdout.split("\0") if path]


def test_no_two_paths_differ_only_by_case() -> None:
    seen: dict[str, str] = {}
    clashes = []
    for path in tracked():
        for part in chain([path], map(str, Path(path).parents)):
            other = seen.setdefault(part.casefold(), part)
            if other != part:
                clashes.append((other, part))
    assert clashes == []


def test_a_stage_is_a_frozen_dataclass_that_opens_no_database() -> None:
    stages = {path: tree for path, tree in sources().items() if path.startswith("pipelines/stages/")}
    found = []
    for path, tree in stages.items():
        assert [
            name for name, _ in imports(tree) if name.startswith(("assistant.db", "sqlalchemy", "channels"))
        ] == [], path
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(getattr(one, "name", "") == "__call__" for one in node.body):
                if any(ast.unparse(base) == "Protocol" for base in node.bases):
                    continue
                found.append(node.name)
                assert any("frozen=True" in ast.unparse(one) for one in node.decorator_list), node.name
                fields = {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
                assert "name" in fields, node.name
    assert {"Classify", "Decide", "Rephrase", "Retrieve", "Screen", "Guard"} <= set(found)


@pytest.mark.checklist(61)
def test_no_secret_is_committed() -> None:
    pattern = re.compile(
        rb"-----BEGIN (RSA |EC |OPENSSH )?PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b|\bxox[bp]-[0-9]{8,}"
    )
    found = [
        path
        for path in tracked()
        if (file := ROOT / path).is_file() and file.stat().st_size < 2_000_000 and pattern.search(file.read_bytes())
    ]
    assert set(found) <= {"tests/test_architecture.py"}


def test_files_and_functions_stay_readable() -> None:
    long_files = {
        path: lines
        for path in sources()
        if not path.startswith("assistant/db/migrations") and (lines := (ROOT / path).read_text().count("\n")) > 600
    }
    long_functions = [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for path, tree in sources().items()
        if not path.startswith("assistant/db/migrations")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 80
    ]
    assert (long_files, long_functions) == ({}, [])


def test_every_make_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    shown = subprocess.run(
        ["make", "-s", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert targets == explained == {line.split()[0] for line in shown.splitlines()}
    assert {"run", "test", "check", "bench", "docs", "help"} <= targets

"""The documentation says what is there: commands, targets, links, decisions; the README is one screen, the changelog has a form."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.commands import every_command

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = every_command()
PYTHON = sorted(
    path for part in ("assistant", "channels", "models", "pipelines") for path in (ROOT / part).rglob("*.py")
)


def snippets(page: str) -> Iterator[str]:
    """Every line of a code block, continued lines joined, and every piece of code within a sentence."""
    text = (ROOT / page).read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (line.strip() for line in prose.splitlines() if line.startswith("    "))
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


def typed(page: str, program: str) -> list[list[str]]:
    """The words after `program` where it is called, up to a comment or the next command."""
    found = []
    for line in snippets(page):
        called = re.search(rf"(?:^|[ /]){program} (.*)", line)
        if called is None or not re.match(r"(?:[A-Z_]+=\S+ +)*(?:sudo )?\S*" + program + r" ", line.split("&& ")[-1]):
            continue
        words = re.split(r" (?:#|&&|\||>) ?", called[1])[0]
        found.append(shlex.split(words.replace("...", "X")))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_the_docs_exists_with_its_options(page: str) -> None:
    wrong = []
    for words in typed(page, "notifyr"):
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0].strip(",.")
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        known = {
            option for one in getattr(COMMANDS.get(name), "params", []) for option in (*one.opts, *one.secondary_opts)
        }
        if name not in COMMANDS or options - known - {"--help"}:
            wrong.append(" ".join(words))
    assert wrong == []


def test_commands_are_found_in_the_docs_at_all() -> None:
    found = {words[0] for page in PAGES for words in typed(page, "notifyr") if words}
    assert {"demo", "import", "migrate", "backup", "restore", "worker", "config"} <= found


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_in_the_docs_exists(page: str) -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = [word for words in typed(page, "make") for word in words if "=" not in word and not word.startswith("-")]
    assert [target for target in asked if target not in targets] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_script_in_the_docs_exists(page: str) -> None:
    named = set(re.findall(r"\b(?:scripts|deploy|tests)/[\w./@-]+\.\w+", (ROOT / page).read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_path_and_class_that_contributing_names_exists() -> None:
    named = re.findall(r"`([^`\n]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    # NAME.py is the file to write: its folder is there
    paths = [name.replace("NAME.py", "") for name in named if re.fullmatch(r"[\w.-]+(/[\w.-]*)+", name)]
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    defined = {found for file in PYTHON for found in re.findall(r"^class (\w+)", file.read_text(), re.MULTILINE)}
    classes = [name for name in named if re.fullmatch(r"([A-Z][a-z]+)+", name)]
    assert len(classes) > 6
    assert [name for name in classes if name not in defined | {"Config"}] == []


def test_the_limits_that_contributing_names_are_the_ones_that_are_checked() -> None:
    limits = re.search(
        r"more than (\d+) lines and no function\s+more than (\d+)", (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert limits is not None
    checked = (ROOT / "tests" / "test_architecture.py").read_text()
    assert f'.count("\\n")) > {limits[1]}' in checked and f"+ 1) > {limits[2]}" in checked


@pytest.mark.parametrize("script", ["check_links.py", "keys_doc.py", "operations_doc.py", "checklist_doc.py"])
def test_links_lead_somewhere_and_generated_pages_are_up_to_date(script: str) -> None:
    words = [] if script == "check_links.py" else ["--check"]
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_is_one_screen_with_a_picture_and_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 60
    assert "![The inbox](docs/images/inbox.png)" in text
    assert "make run" in text and "make test" in text


def test_the_changelog_has_a_line_a_change_under_a_version() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    heads = [line for line in lines if line.startswith("## ")]
    assert heads[0] == "## Unreleased"
    assert all(re.fullmatch(r"## \d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", head) for head in heads[1:])
    body = lines[lines.index("## Unreleased") + 1 :]
    assert all(
        re.match(r"- \S|  \S|## |### (Added|Changed|Deprecated|Removed|Fixed|Security)$|$", line) for line in body
    )


def test_every_decision_is_in_the_list_and_short() -> None:
    listed = (ROOT / "docs" / "README.md").read_text()
    for number, path in enumerate(sorted((ROOT / "docs" / "adr").glob("*.md")), 1):
        assert path.name.startswith(f"{number:04}-")
        assert f"(adr/{path.name})" in listed
        assert path.read_text().count("\n") <= 20


def test_the_workflow_runs_what_every_landing_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert all(re.search(r"@v\d+$", step["uses"]) for step in job["steps"] if "uses" in step)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111

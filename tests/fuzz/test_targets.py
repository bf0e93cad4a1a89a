"""Every fuzz target on its whole corpus, and a coverage-guided run of each: 300 s shared by all (`TEST_FUZZ_SECONDS`)."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPORA, TARGETS
from tests.support.figures import Tell

RUN = Path(__file__).with_name("run.py")
SECONDS = float(os.environ.get("TEST_FUZZ_SECONDS", "300"))
"""For all targets together, shared by the cores; `make fuzz` takes 300."""


_COUNT = re.compile(r"(?m)^(\w+) +([\d,]+) inputs ")


def _spent(target: Callable[[bytes], object], data: bytes) -> float:
    """Seconds of this thread's processor time. The better of two counts: a collection of garbage may fall into one."""
    began = time.thread_time()
    target(data)
    return time.thread_time() - began


@pytest.mark.checklist(1)
@pytest.mark.parametrize("name", TARGETS)
def test_the_whole_corpus_passes(name: str) -> None:
    inputs = sorted(path for path in CORPORA[name].iterdir() if path.is_file())
    assert inputs, f"no corpus in {CORPORA[name]}"

    def play() -> None:
        TARGETS[name](b"")
        for path in inputs:
            data = path.read_bytes()
            for cut in (len(data), len(data) // 2):
                assert min(_spent(TARGETS[name], data[:cut]) for _ in range(2)) < 2, path.name

    # In a thread of its own: the browser's stories leave an event loop running in this one.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(play).result()


@pytest.mark.timeout(1300)
def test_the_fuzzer_finds_nothing_in_any_target(tell: Tell) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.fail("atheris is not installed: make setup", pytrace=False)
    done = subprocess.run(
        [sys.executable, RUN, f"--seconds={SECONDS}"], capture_output=True, text=True, timeout=1250, check=False
    )
    # "mime  1,234 inputs  91/s ..." for each target, and "total  21,042 inputs in 80 s, seed 20261124; ..." at the end.
    for line in done.stdout.splitlines():
        tell(" ".join(line.split()))
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    counts = {name: int(count.replace(",", "")) for name, count in _COUNT.findall(done.stdout)}
    total = counts.pop("total")
    assert set(counts) == set(TARGETS), "every target ran"
    assert all(counts.values()), counts  # the slowest asks a database, ten times a second where nothing else runs
    assert total == sum(counts.values())

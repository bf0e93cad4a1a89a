"""Every fuzz target on its whole corpus, and a short coverage-guided run of each."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPORA, TARGETS

RUN = Path(__file__).with_name("run.py")
SECONDS = float(os.environ.get("TEST_FUZZ_SECONDS", "60"))
"""For all targets together, shared by the cores."""


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
                began = time.thread_time()
                TARGETS[name](data[:cut])
                assert time.thread_time() - began < 2, path.name

    # In a thread of its own: the browser's stories leave an event loop running in this one.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(play).result()


@pytest.mark.timeout(600)
def test_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.fail("atheris is not installed: make setup", pytrace=False)
    done = subprocess.run(
        [sys.executable, RUN, f"--seconds={SECONDS}"], capture_output=True, text=True, timeout=580, check=False
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    counts = dict(re.findall(r"(?m)^(\w+) +([\d,]+) inputs ", done.stdout))
    assert set(counts) == {*TARGETS, "total"}
    assert all(int(counts[name].replace(",", "")) > 10 for name in TARGETS), counts

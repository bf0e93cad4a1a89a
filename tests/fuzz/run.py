"""Coverage-guided fuzzing of every target. Not a test: `make fuzz` (300 s), or longer with SECONDS=3600.

    python tests/fuzz/run.py --seconds 300 [--only mime,smtp]

The targets share the seconds, on as many cores as there are: 300 take 150 on two. A finding is written to `fuzz-findings/`
and fails the run: put it into the target's corpus (`tests/data/fuzz/TARGET`, mails into `tests/data/mime`) under a name that
says what it is; `test_targets.py` runs them all.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
SLOWEST = 2.0
"""Seconds of processor time that one input may cost."""
LOOKED_AT = ["email", "channels", "mailparser_reply", "api", "assistant", "pipelines", "aiosmtpd", "json"]


def every(seconds: float, only: list[str], seed: int) -> int:
    """Fuzz the targets, one a core at a time; each gets the same share of the cores' seconds."""
    import atheris

    # Looking into our code while it is imported takes longer than a share: once here, and each target is a fork.
    with atheris.instrument_imports(include=LOOKED_AT):
        from tests.fuzz.targets import CORPORA
        from tests.support.memory import MEMORY, room_in_memory
    names = only or list(CORPORA)
    share = seconds / len(names)
    findings = ROOT / "fuzz-findings"
    findings.mkdir(exist_ok=True)
    failed, total, began = [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if room_in_memory() else None) as said:
        for name, code in _in_turn(names, lambda name: _fuzz(name, share, seed, findings, Path(said))):
            words = (Path(said) / name).read_text(errors="replace")
            total += _report(name, words, found=bool(code))
            if code:
                failed.append(name)
                print("\n".join(words.splitlines()[-40:]), file=sys.stderr)
    if not any(findings.iterdir()):
        findings.rmdir()
    print(
        f"total      {total:9,} inputs in {time.monotonic() - began:.0f} s, seed {seed}; {len(failed)} of {len(names)} targets found something"
    )
    return 1 if failed else 0


def _in_turn(names: Sequence[str], work: Callable[[str], None]) -> Iterator[tuple[str, int]]:
    """Each name's work in a fork, as many at a time as there are cores: (name, exit code) as they end."""
    waiting, running = list(names), dict[int, str]()
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            name = waiting.pop(0)
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                work(name)
                os._exit(1)  # a fuzzer ends its process itself
            running[child] = name
        ended, status = os.wait()
        yield running.pop(ended), os.waitstatus_to_exitcode(status)


def _fuzz(name: str, share: float, seed: int, findings: Path, said: Path) -> None:
    """Fuzz one target in this process, which it ends. What it prints goes into `said`."""
    import atheris

    from tests.fuzz.targets import CORPORA, TARGETS

    out = os.open(said / name, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)

    def bounded(data: bytes) -> None:
        began = time.thread_time()
        TARGETS[name](data)
        if (spent := time.thread_time() - began) > SLOWEST:
            raise RuntimeError(f"{spent:.1f} s of processor time for {len(data)} bytes")

    grown = said / f"{name}-corpus"
    files = said / f"{name}-files"
    files.mkdir()
    tempfile.tempdir = str(files)  # the fuzzer ends its process without a goodbye: the folder goes with the run
    TARGETS[name](b"")  # what a target makes once, a database say, takes nothing of its share of the seconds
    grown.mkdir()
    limits = [
        "-timeout=30",  # by the clock on the wall, which a busy machine stretches: only for what hangs
        "-rss_limit_mb=1024",
        "-max_len=4096",
        f"-seed={seed}",
        f"-max_total_time={max(1, round(share))}",
        f"-artifact_prefix={findings}/{name}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, str(grown), str(CORPORA[name])], bounded)
    atheris.Fuzz()


def _report(name: str, words: str, *, found: bool) -> int:
    """Print a target's line; how many inputs it got."""
    count = re.search(r"number_of_executed_units:\s*(\d+)", words) or re.search(r"Done (\d+) runs", words)
    rate = re.search(r"average_exec_per_sec:\s*(\d+)", words)
    slowest = re.search(r"slowest_unit_time_sec:\s*(\d+)", words)
    inputs = int(count[1]) if count else 0
    print(
        f"{name:10} {inputs:9,} inputs {int(rate[1]) if rate else 0:7,}/s  slowest {slowest[1] if slowest else '?'} s  {'FOUND' if found else 'nothing'}",
        flush=True,
    )
    return inputs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together")
    parser.add_argument("--only", default="", help="names of targets, comma separated")
    parser.add_argument("--seed", type=int, default=20261124)
    options = parser.parse_args()
    return every(options.seconds, [name for name in options.only.split(",") if name], options.seed)


if __name__ == "__main__":
    sys.exit(main())

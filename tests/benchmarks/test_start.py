"""From `notifyr run` to its first page: the first start, which makes everything, and a second one, beside the bare libraries."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from assistant.clock import monotonic
from assistant.settings import ROOT
from tests.support.installation import program
from tests.support.servers import clean_environment, free_port, wait_until

_STARTS = 3
_BARE = "import celery, fastapi, sqlalchemy.orm, uvicorn"
"""What any program of this kind imports before it can do anything."""


@contextlib.contextmanager
def started(environment: dict[str, str], url: str, log: Path) -> Iterator[dict[str, float]]:
    """Seconds until the first page, and until the models are there as well."""
    began, times = monotonic(), {}

    def page() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/sign-in", timeout=5, trust_env=False).status_code == 200
        return False

    def ready() -> bool:
        states = httpx.get(f"{url}/readyz", timeout=5, trust_env=False).json()["models"]
        return {states.get(name, {}).get("state") for name in ("encoder", "generator")} == {"ready"}

    with program(environment, log):
        wait_until(page, seconds=60, what="the first page")
        times["page"] = monotonic() - began
        wait_until(ready, seconds=90, what="the models")
        times["models"] = monotonic() - began
        yield times


def bare() -> float:
    began = monotonic()
    subprocess.run([sys.executable, "-c", _BARE], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    return monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_start_against_importing_the_bare_libraries(tmp_path: Path) -> None:
    port = free_port()
    environment = clean_environment(
        NOTIFYR_DATA_DIR=str(tmp_path / "var"), NOTIFYR_PORT=str(port), NOTIFYR_SMTP_PORT=str(free_port())
    )
    load, found, base = os.getloadavg()[0], [], []
    for number in range(1 + _STARTS):
        base.append(bare())
        with started(environment, f"http://127.0.0.1:{port}", tmp_path / f"{number}.log") as times:
            found.append(times)
    first, later = found[0], {name: statistics.median(one[name] for one in found[1:]) for name in found[0]}
    unit = statistics.median(base)
    for name, times in (("first start", first), ("second start", later)):
        sys.stdout.write(
            f"\n  {name}: page after {times['page']:.1f} s = {times['page'] / unit:.1f} x `{_BARE}` ({unit:.2f} s), "
            f"models after {times['models']:.1f} s; load {load:.1f} before"
        )
    sys.stdout.write("\n")
    assert later["page"] <= first["page"] * 1.5, "a second start does not make again what is there"

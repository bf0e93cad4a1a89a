"""How long the collector of garbage stops the API: a full look, as it is and as it would be without what `app_factory` freezes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from assistant.settings import ROOT
from tests.support.figures import Tell
from tests.support.servers import clean_environment

SCRIPT = """
import gc, time
from api.main import app_factory
app = app_factory()
def pause():
    gc.collect()
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began
ours = min(pause() for _ in range(5))
gc.unfreeze()
print(ours, min(pause() for _ in range(5)))
app.state.container.close()
"""


@pytest.mark.timeout(120)
def test_a_full_look_for_garbage_stops_no_request_for_long(tmp_path: Path, tell: Tell) -> None:
    env = clean_environment(NOTIFYR_DATA_DIR=str(tmp_path / "var"), NOTIFYR_ENCODER="off", NOTIFYR_GENERATOR="off")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours, whole = map(float, done.stdout.split()[-2:])
    tell(f"a full look for garbage in the api: {ours * 1000:.1f} ms, {whole * 1000:.0f} ms with all that stays")
    assert ours < whole / 5

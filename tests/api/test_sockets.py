"""What listens, and where. The api opens one socket, on the loopback address, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from assistant.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
@pytest.mark.checklist(66)
def test_the_api_process_listens_on_its_own_port_and_no_other(
    make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str, tmp_path: Path
) -> None:
    settings = make_settings()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NOTIFYR_")},
        "NOTIFYR_DATA_DIR": str(settings.data_dir),
        "NOTIFYR_DATABASE_URL": sqlite_url,
        "NOTIFYR_REDIS_URL": valkey_url,
        "NOTIFYR_PORT": str(settings.port),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "api.cli", "api"], cwd=ROOT, env=environ, stderr=log)
    try:
        url = f"http://127.0.0.1:{settings.port}"
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            try:
                assert httpx.get(f"{url}/readyz", trust_env=False).json()["status"] == "ready"
                break
            except httpx.TransportError:
                time.sleep(0.05)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = {
            (found.laddr.ip, found.laddr.port)
            for member in family
            for found in member.net_connections(kind="inet")
            if found.status == psutil.CONN_LISTEN or (found.type == 2 and not found.raddr)
        }
        assert listening == {("127.0.0.1", settings.port)}
        modules = subprocess.run(
            [
                sys.executable,
                "-c",
                "import api.main, sys; print([m for m in ('torch', 'onnxruntime', 'llama_cpp') if m in sys.modules])",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert modules.stdout.strip() == "[]"  # the api never loads a model
    finally:
        process.terminate()
        assert process.wait(30) in {0, -15}
    lines = (tmp_path / "log").read_text()
    assert "Traceback" not in lines

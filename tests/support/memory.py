"""Where the files of a test run stand: in memory, where the machine has room for them.

A disk that answers slowly costs a PostgreSQL test half a second for its database alone, and each commit on SQLite an fsync. No
test pulls a plug: a process that is killed leaves what it wrote to the kernel either way, and faults of a disk are made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

__all__ = ["MEMORY", "room_in_memory", "use_memory"]

MEMORY = Path("/dev/shm")
_NEEDED = 4 << 30
"""Bytes: far more than a run keeps at a time, since what a test that passed has written is removed."""


def room_in_memory() -> bool:
    """Whether files, also programs, can be made there, in a machine that does not need the memory itself."""
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return min(psutil.virtual_memory().available, shutil.disk_usage(MEMORY).free) > _NEEDED


def use_memory() -> None:
    """For this process and those it starts, unless somebody said where else (`TMPDIR`)."""
    if "TMPDIR" not in os.environ and room_in_memory():
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

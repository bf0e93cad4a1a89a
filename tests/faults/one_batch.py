"""One batch of crashes in a process of its own: `crashes.crash` says on standard input which, and reads the result as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.faults.catalogue import PATHS, STORES
from tests.faults.crashes import batch

if __name__ == "__main__":
    given = json.load(sys.stdin)
    folder = Path(given["folder"])
    path = next(one for one in PATHS + STORES if one.name == given["path"])
    found = batch(path.start(folder, given["url"]), path, folder, given["rounds"], given["seed"])
    print(json.dumps({"killed": found.killed, "survived": found.survived, "problems": found.problems}))  # noqa: T201

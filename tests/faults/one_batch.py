"""One batch of crashes in a process of its own: `crashes.crash` says on standard input which, and reads the result as JSON."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

gc.disable()  # a batch is short, and each of its forks would copy what the collector touches

from tests.faults.catalogue import PATHS, STORES  # noqa: E402
from tests.faults.crashes import batch  # noqa: E402

if __name__ == "__main__":
    given = json.load(sys.stdin)
    folder = Path(given["folder"])
    path = next(one for one in PATHS + STORES if one.name == given["path"])
    found = batch(path.start(folder, given["url"]), path, folder, given["rounds"], given["seed"])
    print(json.dumps({"killed": found.killed, "survived": found.survived, "problems": found.problems}))  # noqa: T201

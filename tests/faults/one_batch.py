"""Batches of crashes, each in a process of its own: `crashes.crash` writes one a line, and reads each result as JSON.

This process imports everything once and forks for a batch. It opens nothing itself, so that every batch starts clean.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

gc.disable()  # a batch is short, and each of its forks would copy what the collector touches
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what else is said, as the log of what runs, is no answer

from tests.faults.catalogue import PATHS, STORES  # noqa: E402
from tests.faults.crashes import LONGEST, batch  # noqa: E402


def _say(**found: Any) -> None:
    print(json.dumps(found), file=_ANSWERS, flush=True)


def _in_child(given: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    signal.alarm(LONGEST)
    folder = Path(given["folder"])
    path = next(one for one in PATHS + STORES if one.name == given["path"])
    try:
        found = batch(path.start(folder, given["url"]), path, folder, given["rounds"], given["seed"])
        _say(killed=found.killed, survived=found.survived, problems=found.problems)
    except BaseException:  # noqa: BLE001  # whatever it is, the reader of the result has to hear of it
        _say(killed={}, survived=0, problems=[f"a batch ended early: {traceback.format_exc()[-3000:]}"])
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _in_child(json.loads(line))
        status = os.waitpid(child, 0)[1]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # rounds that hang
        if os.WIFSIGNALED(status):  # it could say nothing any more
            hung = f", it took more than {LONGEST} s" if os.WTERMSIG(status) == signal.SIGALRM else ""
            _say(killed={}, survived=0, problems=[f"a batch ended by signal {os.WTERMSIG(status)}{hung}"])

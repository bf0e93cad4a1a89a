"""The `notifyr` command under a clock that a test sets while it runs. Usage: CLOCK_FILE ARGUMENTS...

The file holds seconds to add; what the process goes by is in `CLOCK_FILE.seen`. libfaketime would do it from outside, but an absolute `clock_nanosleep`, which Python 3.11's
`sleep` is, fails under it with EINVAL. SIGUSR2 writes where each thread stands to the log.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import time_machine

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def follow(clock: Path) -> None:
    """Let the process' time be as far off as the file says, whatever it says next."""
    offset, travel = 0.0, None
    seen = Path(f"{clock}.seen")
    seen.write_text(str(offset))
    while True:
        wanted = float(clock.read_text().strip() or offset)
        if wanted != offset:
            if travel is not None:
                travel.stop()
            travel, offset = time_machine.travel(timedelta(seconds=wanted)), wanted
            travel.start()
            seen.write_text(str(offset))
        time.sleep(0.1)


def main() -> None:
    faulthandler.register(signal.SIGUSR2)
    from api import cli

    threading.Thread(target=follow, args=(Path(sys.argv[1]),), daemon=True).start()
    sys.argv = ["notifyr", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    main()

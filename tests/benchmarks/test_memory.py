"""Memory of a whole installation without models, idle after its first mails: what each process adds, and a bound on the sum."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.states import TriageState
from tests.support.installation import Installation, installation, mail
from tests.support.servers import wait_until

LARGEST = int(os.environ.get("TEST_MEMORY_BYTES", "350000000"))
MAILS = 5


def _shares(run: Installation) -> dict[str, int]:
    """Bytes of each process, a page that several share counted once among them (PSS): the sum is what is really used."""
    root = psutil.Process(run.process.pid)
    return {
        f"{one.pid} {' '.join(one.cmdline())[-60:]}": one.memory_full_info().pss
        for one in (root, *root.children(recursive=True))
    }


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is counted by Linux only")
@pytest.mark.timeout(180)
def test_an_idle_installation_without_models_stays_small(tmp_path: Path) -> None:
    with installation(tmp_path / "var", wait_for_models=False, encoder="off", generator="off") as run:
        for number in range(MAILS):
            run.send(mail("ann@example.com", f"Question {number}", "Where is my order?"))
        with closing(Database(run.settings.sql_url, pool_size=1)) as database, database.reading() as session:
            triaged = select(func.count()).select_from(Message).where(Message.triage == TriageState.DONE)
            wait_until(lambda: session.rollback() or session.scalar(triaged) == MAILS, seconds=60, what="the workers")
        found = _shares(run)
    sys.stdout.write("\n" + "".join(f"  {size / 1e6:6.1f} MB  {name}\n" for name, size in found.items()))
    sys.stdout.write(f"  {sum(found.values()) / 1e6:6.1f} MB  in all\n")
    assert len(found) >= 8, "the run command, its five processes, Valkey and the parser"
    assert sum(found.values()) < LARGEST

"""Exit 0 when the installation of this folder has a suggestion that waits for a person."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqlalchemy import select

from assistant.db.messages import Suggestion
from assistant.db.session import Database
from assistant.settings import load_settings
from assistant.states import SuggestionState

with closing(Database(load_settings().sql_url, pool_size=1)) as database, database.reading() as session:
    found = session.scalar(select(Suggestion.id).where(Suggestion.state == SuggestionState.PROPOSED).limit(1))
sys.exit(0 if found else 1)

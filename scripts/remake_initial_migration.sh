#!/usr/bin/env bash
# Writes migration 0001 anew from the tables in the code. Only until the first release: afterwards a change is a new file.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -f assistant/db/migrations/versions/0001_*.py
.venv/bin/python - <<'PYTHON'
from sqlalchemy import create_engine

from assistant.db.migrate import make_revision

with create_engine("sqlite://").begin() as connection:
    print(make_revision(connection, "0001", "initial tables"))
PYTHON
sed -i '/# ### .*Alembic/d' assistant/db/migrations/versions/0001_*.py
.venv/bin/ruff check -q --fix-only assistant/db/migrations/versions || true
.venv/bin/ruff format -q assistant/db/migrations/versions

"""Words that are looked for in threads: in the newest of each state, and in all threads of the people they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, CompoundSelect, Select, func, select, union
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.util import ClauseAdapter

from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Thread
from assistant.services.paging import Key, order_by
from assistant.states import ThreadState

__all__ = ["SEARCHED", "mentioning"]

SEARCHED = 20_000
"""Threads of each state, and contacts, newest first, in which words are looked for; with fewer than that, all of them."""
_CALLED = 500
"""Contacts of a name whose threads are all looked into; a word that fits more of them says little about who."""


def mentioning(
    looked_for: Sequence[str],
    states: Sequence[ThreadState],
    in_states: ColumnElement[bool],
    keys: Sequence[Key],
    conditions: Sequence[ColumnElement[bool]],
    *,
    newest: Sequence[Key],
) -> list[Select[Any]]:
    """Ids and sort values (`sort_0` ...) of threads with all the words, one statement for each place they are looked for in."""
    people = select(Contact.id, func.lower(Contact.display_name).label("called")).order_by(Contact.id.desc())
    known = select(Identity.contact_id, func.lower(Identity.address).label("called")).order_by(Identity.id.desc())
    lately = people.limit(SEARCHED).cte("people"), known.limit(SEARCHED).cte("known")  # read once for all words
    called = [_called(word, *lately).cte(f"called_{number}") for number, word in enumerate(looked_for)]
    return [
        *[_lately(one, keys, conditions, looked_for, called, newest) for one in states],
        _theirs(keys, [in_states, *conditions], looked_for, called),
    ]


def _theirs(
    keys: Sequence[Key], conditions: Sequence[ColumnElement[bool]], looked_for: Sequence[str], called: Sequence[CTE]
) -> Select[Any]:
    """Ids and sort values of the threads of contacts that a word calls, with all the words.

    Those contacts are one set, and their threads are materialized before a word is looked for: the database goes from the
    contacts to their threads, where PostgreSQL else reads the words of every thread there is.
    """
    table = Thread.__table__
    anybody = union(*[select(one.c.id) for one in called])
    theirs = select(table).where(table.c.contact_id.in_(anybody)).cte("theirs").prefix_with("MATERIALIZED")
    threads = theirs.alias("threads")
    adapted = ClauseAdapter(threads).traverse
    columns = [adapted(key.column()).label(f"sort_{number}") for number, key in enumerate(keys)]
    mentioned = [
        _has(threads.c.subject, word) | _has(threads.c.snippet, word) | threads.c.contact_id.in_(select(known.c.id))
        for word, known in zip(looked_for, called, strict=True)
    ]
    return select(threads.c.id, *columns).where(*[adapted(one) for one in conditions], *mentioned)


def _lately(
    state: ThreadState,
    keys: Sequence[Key],
    conditions: Sequence[ColumnElement[bool]],
    looked_for: Sequence[str],
    called: Sequence[CTE],
    newest: Sequence[Key],
) -> Select[Any]:
    """Ids and sort values of the newest threads of one state with all the words.

    Those threads stand in a subquery with a limit, which no planner looks through: PostgreSQL else reads the words of every
    thread there is before it asks which are new. Their text is put in small letters once, however many words there are.
    """
    table = Thread.__table__
    said = func.lower(table.c.subject + "\n" + table.c.snippet).label("said")
    latest = select(table, said).where(table.c.state == state).order_by(*order_by(newest)).limit(SEARCHED)
    # Named as the table: expressions that are literal text find their columns here.
    recent = latest.subquery("threads")
    adapted = ClauseAdapter(recent).traverse
    columns = [adapted(key.column()).label(f"sort_{number}") for number, key in enumerate(keys)]
    mentioned = [
        recent.c.said.like(func.lower(_pattern(word)), escape="/") | recent.c.contact_id.in_(select(known.c.id))
        for word, known in zip(looked_for, called, strict=True)
    ]
    return select(recent.c.id, *columns).where(*[adapted(one) for one in conditions], *mentioned)


def _called(word: str, people: CTE, known: CTE) -> CompoundSelect[Any]:
    """Contacts with `word` in name or address, of the newest ones; whoever has exactly that address, whenever they came."""
    pattern = func.lower(_pattern(word))
    found = (
        select(people.c.id).where(people.c.called.like(pattern, escape="/")).limit(_CALLED),
        select(known.c.contact_id).where(known.c.called.like(pattern, escape="/")).limit(_CALLED),
        select(Identity.contact_id).where(Identity.channel == "email", Identity.address == word.lower()),
    )
    return union(*[select(one.subquery()) for one in found])


def _has(column: ColumnElement[str] | InstrumentedAttribute[str], word: str) -> ColumnElement[bool]:
    """`word` as it stands, in any case. Not by ILIKE, which takes four times as long."""
    return func.lower(column).like(func.lower(_pattern(word)), escape="/")


def _pattern(word: str) -> str:
    """LIKE's pattern for `word` anywhere, with the meaning taken from `%` and `_`."""
    for sign in "/%_":
        word = word.replace(sign, f"/{sign}")
    return f"%{word}%"

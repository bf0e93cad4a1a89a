"""Approved answers: documents, their chunks, and the version that every cache key and index carries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.knowledge import Chunk, Document
from assistant.db.session import publish
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.values import Passage

__all__ = [
    "LiveChunk",
    "add",
    "by_ids",
    "chunk",
    "disable",
    "enable",
    "get",
    "knowledge_version",
    "list_documents",
    "live_chunks",
    "passages",
    "seed",
    "update",
]

KINDS = ("snippet", "file", "reply")
MAX_TEXT = 200_000
CHUNK_CHARACTERS = 700
"""About 150 tokens: one answer, well inside what the encoder reads."""


@dataclass(frozen=True, slots=True)
class LiveChunk:
    """A chunk that may be cited: `number` is its point id in the vector index."""

    number: int
    title: str
    text: str

    @property
    def searchable(self) -> str:
        """What is embedded: the title often holds the words of the question."""
        return f"{self.title}\n{self.text}"


def add(session: Session, *, title: str, text: str, kind: str = "snippet") -> Document:
    """Add an approved answer. Raises `Conflict` when the title exists, `InvalidInput` when it is empty or too long."""
    title, text = _checked(title, text)
    if kind not in KINDS:
        raise InvalidInput(f"kind must be one of {', '.join(KINDS)}")
    if session.scalar(select(Document.id).where(Document.title == title)) is not None:
        raise Conflict(f"there is already a document titled {title!r}: update that one")
    document = Document(title=title, kind=kind, text=text, version=1)
    session.add(document)
    session.flush()
    _chunk(session, document)
    return document


def update(session: Session, document_id: str, *, text: str, title: str | None = None) -> Document:
    """Replace an answer by its next version. The same text again changes nothing."""
    document = get(session, document_id)
    title, text = _checked(title or document.title, text)
    if (title, text) == (document.title, document.text):
        return document
    document.title, document.text = title, text
    document.version += 1
    session.flush()
    _chunk(session, document)
    return document


def disable(session: Session, document_id: str) -> Document:
    """Take an answer out of every search from the next one on. Suggestions that cite it keep their copy."""
    document = get(session, document_id)
    if document.disabled_at is None:
        document.disabled_at = utcnow()
        session.flush()
        publish(session, "knowledge.changed")
    return document


def enable(session: Session, document_id: str) -> Document:
    document = get(session, document_id)
    if document.disabled_at is not None:
        document.disabled_at = None
        session.flush()
        publish(session, "knowledge.changed")
    return document


def get(session: Session, document_id: str) -> Document:
    document = session.get(Document, document_id)
    if document is None:
        raise NotFound(f"there is no document {document_id}")
    return document


def by_ids(session: Session, ids: Iterable[str]) -> dict[str, Document]:
    """The documents that are still there, disabled ones too, by id."""
    found = session.scalars(select(Document).where(Document.id.in_({one for one in ids if one})))
    return {document.id: document for document in found}


def list_documents(session: Session, *, disabled: bool = False) -> Sequence[Document]:
    """Documents by title; the disabled ones too when asked."""
    query = select(Document).order_by(Document.title)
    return session.scalars(query if disabled else query.where(Document.disabled_at.is_(None))).all()


def knowledge_version(session: Session) -> str:
    """A short hash over every answer in use: it changes exactly when an answer is added, changed or disabled."""
    rows = session.execute(
        select(Document.id, Document.version).where(Document.disabled_at.is_(None)).order_by(Document.id)
    )
    digest = hashlib.sha256()
    for document_id, version in rows:
        digest.update(f"{document_id}:{version}\n".encode())
    return digest.hexdigest()[:16]


def live_chunks(session: Session) -> list[LiveChunk]:
    """Every chunk that may be cited: the current version of the documents in use."""
    rows = session.execute(
        select(Chunk.number, Document.title, Chunk.text)
        .join(Document, Chunk.document_id == Document.id)
        .where(Document.disabled_at.is_(None), Chunk.version == Document.version)
        .order_by(Chunk.number)
    )
    return [LiveChunk(number, title, text) for number, title, text in rows]


def passages(session: Session, hits: Sequence[tuple[int, float]]) -> tuple[Passage, ...]:
    """The passages behind `(number, score)` hits, in their order. A hit without a live row is dropped, never cited."""
    rows = {
        chunk.number: (chunk, document)
        for chunk, document in session.execute(
            select(Chunk, Document)
            .join(Document, Chunk.document_id == Document.id)
            .where(
                Chunk.number.in_([number for number, _ in hits]),
                Document.disabled_at.is_(None),
                Chunk.version == Document.version,
            )
        )
    }
    return tuple(
        Passage(
            text=rows[number][0].text,
            source=rows[number][1].title,
            score=round(min(1.0, max(0.0, score)), 4),
            document_id=rows[number][1].id,
            version=rows[number][1].version,
        )
        for number, score in hits
        if number in rows
    )


def seed(session: Session, documents: Iterable[tuple[str, str]]) -> int:
    """Add the `(title, text)` pairs whose title is not there yet; returns how many were added."""
    known = set(session.scalars(select(Document.title)))
    wanted = [(title, text) for title, text in documents if title not in known]
    for title, text in wanted:
        add(session, title=title, text=text)
    return len(wanted)


def chunk(text: str, *, limit: int = CHUNK_CHARACTERS) -> list[str]:
    """`text` cut into pieces of at most `limit` characters, at paragraphs, else sentences, else words."""
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        for part in _split(" ".join(paragraph.split()), limit):
            if pieces and len(pieces[-1]) + 1 + len(part) <= limit:
                pieces[-1] = f"{pieces[-1]} {part}"
            else:
                pieces.append(part)
    return [piece for piece in pieces if piece]


def _split(paragraph: str, limit: int) -> list[str]:
    parts = [paragraph]
    for pattern in (r"(?<=[.!?]) ", r" "):
        parts = [piece for part in parts for piece in (re.split(pattern, part) if len(part) > limit else [part])]
    return [part[start : start + limit] for part in parts for start in range(0, len(part) or 1, limit)]


def _chunk(session: Session, document: Document) -> None:
    session.execute(delete(Chunk).where(Chunk.document_id == document.id))
    for position, text in enumerate(chunk(document.text)):
        session.add(
            Chunk(
                document_id=document.id,
                version=document.version,
                position=position,
                text=text,
                number=_number(document.id, document.version, position),
            )
        )
    session.flush()
    publish(session, "knowledge.changed")


def _number(document_id: str, version: int, position: int) -> int:
    # 53 bits: exact in JSON and JavaScript too.
    return int.from_bytes(hashlib.sha256(f"{document_id}:{version}:{position}".encode()).digest()[:8]) >> 11


def _checked(title: str, text: str) -> tuple[str, str]:
    title, text = " ".join(title.split()), text.strip()
    if not title or len(title) > 300:
        raise InvalidInput("a document needs a title of 1 to 300 characters")
    if not text or len(text) > MAX_TEXT:
        raise InvalidInput(f"a document needs a text of 1 to {MAX_TEXT} characters")
    return title, text

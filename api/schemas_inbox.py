"""Request and response types of what agents add to threads: notes, labels, files, saved replies, merges and splits."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.schemas import EXAMPLE_ID, In, Name, Out, Reference, example
from assistant.db.inbox import Label, Note, SavedReply, Upload
from assistant.db.moves import ThreadMove
from assistant.services import notes

__all__ = [
    "LabelCount",
    "LabelPut",
    "MergeInto",
    "MoveOut",
    "NoteOut",
    "NoteWrite",
    "SavedReplyOut",
    "SavedReplyWrite",
    "Split",
    "ThreadLabelOut",
    "UploadOut",
]

Words = Annotated[str, StringConstraints(min_length=1, max_length=notes.LONGEST, pattern=r"\S")]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"\S")]


class NoteOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    thread_id: str
    agent_id: str | None
    text: str
    created_at: datetime

    @classmethod
    def of(cls, note: Note) -> NoteOut:
        return cls(**{name: getattr(note, name) for name in cls.model_fields})


class NoteWrite(In):
    model_config = In.model_config | example(text="She called as well: be quick.")
    text: Words


class ThreadLabelOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    name: str

    @classmethod
    def of(cls, label: Label) -> ThreadLabelOut:
        return cls(id=label.id, name=label.name)


class LabelCount(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    name: str
    threads: int = Field(description="How many threads have it.")

    @classmethod
    def of(cls, found: tuple[Label, int]) -> LabelCount:
        label, count = found
        return cls(id=label.id, name=label.name, threads=count)


class LabelPut(In):
    """A label comes into being with its first use. Its name is kept in lower case, words joined by `-`."""

    model_config = In.model_config | example(name="refund")
    name: Annotated[str, StringConstraints(min_length=1, max_length=50)]


class UploadOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    filename: str
    content_type: str = Field(description="Found in the content, not the type that was claimed.")
    size: int
    created_at: datetime

    @classmethod
    def of(cls, upload: Upload) -> UploadOut:
        return cls(**{name: getattr(upload, name) for name in cls.model_fields})


class SavedReplyOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    name: str
    text: str
    agent_id: str | None
    updated_at: datetime

    @classmethod
    def of(cls, reply: SavedReply) -> SavedReplyOut:
        return cls(**{name: getattr(reply, name) for name in cls.model_fields})


class SavedReplyWrite(In):
    """`{first_name}`, `{name}`, `{subject}` and `{agent}` are filled in when it is inserted; no other name may stand in braces."""

    model_config = In.model_config | example(name="Thanks", text="Hello {first_name}, thank you for your patience.")
    name: Annotated[Name, StringConstraints(max_length=80)]
    text: Words


class MergeInto(In):
    model_config = In.model_config | example(into_id=EXAMPLE_ID, reason="the same order")
    into_id: Reference
    reason: Reason


class Split(In):
    model_config = In.model_config | example(reason="another matter")
    reason: Reason


class MoveOut(Out):
    """A merge (`from_id` is gone, its address leads to `into_id`), or a split (`into_id` is the new thread)."""

    id: str = Field(examples=[EXAMPLE_ID])
    kind: Literal["merge", "split"]
    from_id: str
    into_id: str
    agent_id: str | None
    reason: str
    created_at: datetime
    undone_at: datetime | None

    @classmethod
    def of(cls, move: ThreadMove) -> MoveOut:
        return cls(**{name: getattr(move, name) for name in cls.model_fields})

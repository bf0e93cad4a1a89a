"""Files for messages that are not sent yet: upload one, name its id in `upload_ids` of the reply it goes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile

from api.deps import Access, ApiRoute, Caller, Id, Parts, Reading, Transaction
from api.errors import UnsupportedMedia
from api.forms import read_form
from api.routers.common import CHANGED, FAILS, FOUND, Cursor, IdempotencyKey, Limit
from api.schemas import Listing, listing
from api.schemas_inbox import UploadOut
from assistant.backends.blobs import key_of
from assistant.db.session import after_commit
from assistant.errors import InvalidInput, TooLarge
from assistant.services import uploads
from assistant.values import StoredAttachment
from channels.support.content import file_name, sniffed

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/uploads", tags=["uploads"], route_class=ApiRoute, responses=FAILS)
Sender = Annotated[Caller, Depends(Access("messages:send"))]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "additionalProperties": False,
                }
            }
        },
    }
}


@dataclass(frozen=True, slots=True)
class _Received:
    file: StoredAttachment
    content: bytes


async def _received(request: Request, caller: Sender, parts: Parts) -> _Received:
    """The one file of the body, its bytes in the blob store. Read after the caller is known, before a transaction is open."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedMedia("send the file as multipart/form-data, in a field named file")
    form = await read_form(request, files=1, fields=0)
    try:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise InvalidInput("send one file, in a field named file")
        content = await part.read(uploads.LARGEST + 1)
    finally:
        await form.close()
    if len(content) > uploads.LARGEST:
        raise TooLarge(f"a file has at most {uploads.LARGEST // 1_000_000} MB")
    stored = StoredAttachment(
        filename=file_name(part.filename or "") or "file",
        content_type=sniffed(content, (part.content_type or "").partition(";")[0].strip().lower()),
        size=len(content),
        blob_key=key_of("parts", content),
    )
    await run_sync(parts.blobs.keep, stored.blob_key, content)
    return _Received(stored, content)


@router.get("", operation_id="listUploads", response_model=Listing[UploadOut])
def list_uploads(caller: Sender, session: Reading, cursor: Cursor = "", limit: Limit = 50) -> dict[str, Any]:
    """One page of your files that no message took yet, oldest first."""
    found = uploads.page(session, agent_id=caller.require_agent().id, cursor=cursor, limit=limit)
    return listing(found, UploadOut.of)


@router.post("", operation_id="uploadFile", status_code=201, responses=CHANGED, openapi_extra=_BODY)
def upload_file(
    caller: Sender,
    received: Annotated[_Received, Depends(_received)],
    session: Transaction,
    parts: Parts,
    key: IdempotencyKey = None,
) -> UploadOut:
    """Upload one file of at most 20 MB. It waits for a message of yours, or until it is deleted."""
    by = caller.require_agent().id
    made = uploads.add(session, received.file, agent_id=by, thread_id=None, kind=uploads.PROGRAM)
    after_commit(session, lambda: parts.blobs.ensure(made.blob_key, received.content))
    return UploadOut.of(made)


@router.delete("/{upload_id}", operation_id="deleteUpload", status_code=204, responses=FOUND)
def delete_upload(upload_id: Id, caller: Sender, session: Transaction) -> None:
    """Delete a file that no message took yet."""
    uploads.remove(session, upload_id, agent_id=caller.require_agent().id, kind=uploads.PROGRAM)

"""Attachments: only ever a download, in a sandbox of its own. Nothing that came by mail runs on our origin."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Response

from api.deps import Access, ApiRoute, Caller, Id, Parts
from api.routers.common import FAILS, FOUND
from assistant.services import threads

__all__ = ["download", "router"]

router = APIRouter(prefix="/api/v1/attachments", tags=["messages"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("threads:read"))]

HARMLESS = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "application/pdf",
        "text/plain",
        "text/csv",
        "application/zip",
    }
)
"""Types named in the answer; every other one, HTML, SVG and XML first of all, is `application/octet-stream`."""


@router.get(
    "/{attachment_id}",
    operation_id="downloadAttachment",
    response_class=Response,
    responses=FOUND
    | {
        200: {
            "description": "The file.",
            "content": {kind: {} for kind in sorted({*HARMLESS, "application/octet-stream"})},
        }
    },
)
def download_attachment(attachment_id: Id, caller: Reader, parts: Parts) -> Response:
    """The bytes of one attachment."""
    return download(parts, attachment_id)


def download(parts: Parts, attachment_id: str) -> Response:
    """An attachment as a download: nosniff, opaque origin, the name made safe. Raises `NotFound`."""
    with parts.database.reading() as session:
        attachment = threads.get_attachment(session, attachment_id)
    content = parts.blobs.get(attachment.blob_key)
    kind = attachment.content_type if attachment.content_type in HARMLESS else "application/octet-stream"
    return Response(
        content,
        headers={
            "Content-Type": kind,
            "Content-Disposition": disposition(attachment.filename),
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        },
    )


def disposition(filename: str) -> str:
    """`attachment` with the name in both forms of RFC 6266; no path, quote, control or bidi character survives."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable()).strip(" .")[:150] or "attachment"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-()") else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

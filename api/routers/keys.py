"""API keys: made, rotated and revoked by an admin in a browser, never by another key."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends

from api.deps import Access, ApiRoute, Caller, Id, Reading, Transaction
from api.routers.common import CHANGED, FAILS, IdempotencyKey
from api.schemas import ApiKeyCreate, ApiKeyOut, ApiKeyRotate, ApiKeySecret
from assistant.services import access

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/keys", tags=["access"], route_class=ApiRoute, responses=FAILS)
Admin = Annotated[Caller, Depends(Access(admin=True))]


@router.get("", operation_id="listKeys")
def list_keys(caller: Admin, session: Reading) -> list[ApiKeyOut]:
    """Every key with its last use; secrets are never shown again."""
    return [ApiKeyOut.of(key) for key in access.api_keys(session)]


@router.post("", operation_id="createKey", status_code=201)
def create_key(body: ApiKeyCreate, caller: Admin, session: Transaction, key: IdempotencyKey = None) -> ApiKeySecret:
    """A new key. Its secret is in this answer only."""
    made, secret = access.create_key(
        session,
        body.name,
        scopes=body.scopes,
        actor=caller.actor,
        agent_id=caller.agent_id,
        expires_at=body.expires_at,
    )
    return ApiKeySecret(key=ApiKeyOut.of(made), secret=secret)


@router.post("/{key_id}/rotate", operation_id="rotateKey", status_code=201, responses=CHANGED)
def rotate_key(
    key_id: Id, body: ApiKeyRotate, caller: Admin, session: Transaction, key: IdempotencyKey = None
) -> ApiKeySecret:
    """A new secret with the same name and scopes; the old one works for `overlap_seconds` more."""
    made, secret = access.rotate_key(
        session, key_id, actor=caller.actor, overlap=timedelta(seconds=body.overlap_seconds)
    )
    return ApiKeySecret(key=ApiKeyOut.of(made), secret=secret)


@router.delete("/{key_id}", operation_id="revokeKey", responses=CHANGED)
def revoke_key(key_id: Id, caller: Admin, session: Transaction) -> ApiKeyOut:
    """End a key; the next request with it is refused."""
    return ApiKeyOut.of(access.revoke_key(session, key_id, actor=caller.actor))

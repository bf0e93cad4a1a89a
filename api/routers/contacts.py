"""Contacts: the people outside, with the addresses they are known by."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from api.deps import Access, ApiRoute, Caller, Id, Reading, Transaction
from api.routers.common import FAILS, FOUND, Cursor, Limit, Search
from api.schemas import ContactChange, ContactOut, Listing, listing
from assistant.services import directory

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/contacts", tags=["contacts"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("contacts:read"))]
Writer = Annotated[Caller, Depends(Access("contacts:write"))]


@router.get("", operation_id="listContacts", response_model=Listing[ContactOut])
def list_contacts(
    caller: Reader, session: Reading, q: Search = "", cursor: Cursor = "", limit: Limit = 50
) -> dict[str, Any]:
    """One page of contacts, newest first."""
    return listing(directory.list_contacts(session, search=q, cursor=cursor, limit=limit), ContactOut.of)


@router.get("/{contact_id}", operation_id="getContact", responses=FOUND)
def get_contact(contact_id: Id, caller: Reader, session: Reading) -> ContactOut:
    """One contact."""
    return ContactOut.of(directory.get_contact(session, contact_id))


@router.patch("/{contact_id}", operation_id="changeContact", responses=FOUND)
def change_contact(contact_id: Id, body: ContactChange, caller: Writer, session: Transaction) -> ContactOut:
    """Change the name shown or the note."""
    contact = directory.change_contact(session, contact_id, display_name=body.display_name, note=body.note)
    return ContactOut.of(contact)

"""The form in a body, with a limit of files and fields; what is wrong with it is said in words."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.errors import BadRequest
from assistant.errors import NotifyrError

__all__ = ["read_form"]


async def read_form(request: Request, *, files: int, fields: int) -> FormData:
    """The form of a request. Raises `BadRequest`, or `TooLarge` when its bytes are more than the gate lets through."""
    try:
        return await request.form(max_files=files, max_fields=fields)
    except NotifyrError:
        raise  # of the gate, which counts the bytes while they are read
    except HTTPException as error:  # the parser's own words: "Too many files. Maximum number of files is 20."
        raise BadRequest(f"the form cannot be read: {error.detail}") from error
    except Exception as error:
        raise BadRequest("the form cannot be read") from error

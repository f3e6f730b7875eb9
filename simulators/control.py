"""What the control endpoints share: reading a body, reading a portal from the query, refusing."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Model = TypeVar("Model", bound=BaseModel)


async def parsed(request: Request, model: type[Model]) -> Model:
    """The body as `model`; an empty one as {}. Raises HTTPException 422 with what is wrong."""
    try:
        return model.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        raise HTTPException(422, str(error)) from error


def portal_in(request: Request) -> int | None:
    """`?portal_id=`, or None for all portals."""
    given = request.query_params.get("portal_id")
    if given is None:
        return None
    if not given.isdigit():
        raise HTTPException(422, "portal_id must be a number")
    return int(given)


def refused(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)

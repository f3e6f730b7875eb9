"""A representation as an HTTP answer."""

from starlette.responses import Response

from leads.etags import none_match
from leads.shown import Shown


def shown_response(shown: Shown, if_none_match: str | None) -> Response:
    """200 with the bytes, or 304 if the client has them."""
    headers = {"ETag": shown.etag}
    if none_match(if_none_match, shown.etag):
        return Response(status_code=304, headers=headers)
    return Response(shown.body, headers=headers, media_type="application/json")

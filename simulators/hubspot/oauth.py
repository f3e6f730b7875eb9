"""The token endpoints of every version.

Sources: developers.hubspot.com/docs/api-reference/legacy/authentication/oauth-tokens (v1), …/auth-oauth-v3/guide and
…/2026-03/authentication/oauth-tokens: from v3 on the parameters are read from the form body only.
"""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from simulators.hubspot.accounts import CLIENT_ID, Accounts
from simulators.hubspot.calls import Answer
from simulators.hubspot.errors import ResourceNotFound
from simulators.journal import Entry

VERSIONS = ("v1", "v3", "2026-03", "2026-09")

Operation = tuple[str, str, str, Callable[[Request, bytes, Entry], Answer]]


class OAuth:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def operations(self) -> list[Operation]:
        """Method, path, name and work of each."""
        return [
            ("POST", "/oauth/{version}/token", "oauth.token", self._token),
            ("POST", "/oauth/{version}/token/introspect", "oauth.introspect", self._introspect),
            ("POST", "/oauth/{version}/token/revoke", "oauth.revoke", self._revoke),
            ("GET", "/oauth/v1/access-tokens/{token}", "oauth.introspect", self._access_token_info),
        ]

    def _token(self, request: Request, body: bytes, entry: Entry) -> Answer:
        version, form = _form(request, body)
        return Answer(200, self._accounts.grant(form, version=version), {"Cache-Control": "no-store"})

    def _introspect(self, request: Request, body: bytes, entry: Entry) -> Answer:
        _, form = _form(request, body)
        found = self._accounts.describe(form.get("token", ""))
        if found is None:
            return Answer(200, {"active": False})
        return Answer(200, {"active": True, "client_id": CLIENT_ID, "token_use": "access_token"} | found)

    def _revoke(self, request: Request, body: bytes, entry: Entry) -> Answer:
        _, form = _form(request, body)
        self._accounts.revoke(form.get("token", ""))
        return Answer(200, {})

    def _access_token_info(self, request: Request, body: bytes, entry: Entry) -> Answer:
        found = self._accounts.describe(request.path_params["token"])
        if found is None:
            raise ResourceNotFound("Token not found")
        return Answer(200, found)


def _form(request: Request, body: bytes) -> tuple[str, Mapping[str, str]]:
    """The version, and the parameters: v1 takes them from the query as well."""
    version = str(request.path_params["version"])
    if version not in VERSIONS:
        raise ResourceNotFound
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    form = dict(parse_qsl(body.decode(errors="replace"))) if is_form else {}
    return version, dict(request.query_params) | form if version == "v1" else form

"""What a connection identifies itself with: sealed at rest, opened only to make a call, never shown."""

import base64
import binascii
import secrets
from datetime import datetime

import msgspec

from chassis.vault import Vault

_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix the Standard Webhooks specification gives secrets
_SECRET_BYTES = range(24, 65)


class _Hidden(msgspec.Struct, frozen=True, tag_field="kind"):
    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class StaticToken(_Hidden, frozen=True, tag="access_token"):
    """A token that does not end: HubSpot's service key or a private app's."""

    access_token: str


class OAuth(_Hidden, frozen=True, tag="oauth"):
    """An app's grant. The access token is made from it and kept beside it."""

    client_id: str
    client_secret: str
    refresh_token: str
    access_token: str | None = None


class SigningSecret(_Hidden, frozen=True):
    """A webhook's secret; `until` is set once another has taken its place, and it still signs beside that one."""

    secret: str
    until: datetime | None = None


class SigningSecrets(_Hidden, frozen=True, tag="secret"):
    """The newest first."""

    secrets: tuple[SigningSecret, ...]

    def current(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign at `now`."""
        return tuple(each.secret for each in self.secrets if each.until is None or each.until > now)

    def rotated(self, new: str, until: datetime) -> "SigningSecrets":
        """With `new` in front; the one before signs along until `until`."""
        return SigningSecrets((SigningSecret(new), SigningSecret(self.secrets[0].secret, until)))


Credentials = StaticToken | OAuth | SigningSecrets

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Credentials)


def _owner(workspace_id: str, connection_id: str) -> bytes:
    return f"{workspace_id}/{connection_id}".encode()


def seal(vault: Vault, workspace_id: str, connection_id: str, credentials: Credentials) -> str:
    """The credentials as they are stored; the text opens for this connection only."""
    return vault.seal(_encoder.encode(credentials), _owner(workspace_id, connection_id))


def unseal(vault: Vault, workspace_id: str, connection_id: str, sealed: str) -> Credentials:
    """The credentials behind a stored text. SealBroken if it belongs elsewhere or its key is not ours any more."""
    opened: Credentials = _decoder.decode(vault.open(sealed, _owner(workspace_id, connection_id)))
    return opened


def reseal(vault: Vault, workspace_id: str, connection_id: str, sealed: str) -> str:
    """The same credentials under the vault's current key."""
    owner = _owner(workspace_id, connection_id)
    return vault.seal(vault.open(sealed, owner), owner)


def new_signing_secret() -> str:
    """`whsec_` and 32 random bytes in base64 (Standard Webhooks, "Signature scheme")."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def is_signing_secret(text: str) -> bool:
    """True for `whsec_` followed by 24 to 64 bytes in base64."""
    if not text.startswith(_SECRET_PREFIX):
        return False
    try:
        return len(base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)) in _SECRET_BYTES
    except (binascii.Error, ValueError):
        return False

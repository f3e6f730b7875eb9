"""Secrets at rest: AES-256-GCM (NIST SP 800-38D) under keys that have ids, so that a key can be replaced while in use."""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class SealBroken(Exception):
    """The sealed text was changed, belongs to another thing, or its key is not among ours."""


class Vault:
    """Seals with the first key of `keys`; opens with whichever key a text names."""

    def __init__(self, keys: str) -> None:
        """`keys`: `id:base64 of 32 bytes`, comma separated, the current one first. ValueError says what is wrong with them."""
        self._ciphers: dict[str, AESGCM] = {}
        for entry in filter(None, (part.strip() for part in keys.split(","))):
            key_id, separator, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise ValueError(f"the key {key_id!r} is not base64") from error
            if not separator or not key_id or len(key) != 32:
                raise ValueError("each key must be written id:base64 of 32 bytes")
            self._ciphers[key_id] = AESGCM(key)
        if not self._ciphers:
            raise ValueError("at least one key is needed")
        self._current = next(iter(self._ciphers))

    def seal(self, plaintext: bytes, aad: bytes) -> str:
        """`v1.<key id>.<base64url of nonce and ciphertext>`; `aad` ties it to its owner (say, the row's id)."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._ciphers[self._current].encrypt(nonce, plaintext, aad)
        return f"v1.{self._current}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, aad: bytes) -> bytes:
        """The plaintext; SealBroken if it is not what was sealed for `aad`."""
        version, key_id, encoded = self._parts(sealed)
        if version != "v1" or key_id not in self._ciphers:
            raise SealBroken(f"no key {key_id!r}")
        try:
            raw = base64.urlsafe_b64decode(encoded)
            return self._ciphers[key_id].decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], aad)
        except (InvalidTag, ValueError) as error:  # ValueError: no base64, or too short
            raise SealBroken("the text does not belong here or was changed") from error

    def needs_rotation(self, sealed: str) -> bool:
        """True if it was sealed under a key that is no longer the current one."""
        return self._parts(sealed)[1] != self._current

    @staticmethod
    def _parts(sealed: str) -> tuple[str, str, str]:
        parts = sealed.split(".")
        if len(parts) != 3:
            raise SealBroken("not a sealed text")
        return parts[0], parts[1], parts[2]

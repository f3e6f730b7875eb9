"""Identifiers: a prefix that says what the thing is, and a time-ordered UUID (version 7, RFC 9562) in Crockford's base 32."""

from uuid_utils.compat import uuid7

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """`new_id("lead")` -> `lead_06d3v0c2m5w3f8k1x9q4t7r2ab`: sorts by the time it was made, to the millisecond."""
    number = uuid7().int
    characters = [""] * 26
    for position in range(25, -1, -1):
        characters[position] = _ALPHABET[number & 31]
        number >>= 5
    return f"{prefix}_{''.join(characters)}"

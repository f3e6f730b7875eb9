"""Taking our secrets out of what others send back: a receiver's echo, a vendor's error that quotes the token it refused."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

REDACTED = "[redacted]"
_SHORTEST = 6
"""Shorter texts occur by chance, and are no secrets."""
_LONGEST_ESCAPE = 16
"""Characters that one may take in the text, a few levels deep."""
_WRITTEN = re.compile(r"\\+u(?P<code>[0-9A-Fa-f]{4})|\\*(?P<character>.)", re.DOTALL)
"""One character as JSON strings write it; each JSON string within another adds back-slashes."""


def redact(text: str, secrets: Iterable[str], limit: int | None = None) -> str:
    """`text` without any of the secrets, also where JSON escapes stand for their characters. A JSON string stays one.

    With a `limit`, its first so many characters; a secret that begins within them goes as a whole.
    """
    secrets = list(secrets)
    for written in {written for secret in secrets for written in _escaped(secret)}:
        text = text.replace(written, REDACTED)
    named = sorted({part for secret in secrets for part in _parts(secret)}, key=len, reverse=True)
    if not named:
        return text[:limit]
    reach = None if limit is None else limit + len(named[0]) * _LONGEST_ESCAPE
    text = text[:reach]
    plain, begins = _read(text)
    kept, done = [], 0
    for match in re.finditer("|".join(map(re.escape, named)), plain):
        if limit is not None and begins[match.start()] >= limit:
            break
        kept += [text[done : begins[match.start()]], REDACTED]
        done = begins[match.end()]
    return "".join(kept) + text[done:limit]


def _escaped(secret: str) -> Iterator[str]:
    """A secret with characters that JSON has names for, as it stands in a JSON string."""
    for written in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        if written != secret and len(secret) >= _SHORTEST:
            yield written


def _parts(secret: str) -> Iterator[str]:
    """What to look for: the whole, and what follows a scheme such as Bearer or the mark of a signing secret."""
    for part in (secret, secret.rpartition(" ")[2], secret.removeprefix("whsec_")):
        if len(plain := _read(part)[0]) >= _SHORTEST:
            yield plain


def _read(text: str) -> tuple[str, Sequence[int]]:
    """What is written in `text`, however often it was put into JSON strings, and where each character of that begins in `text`."""
    if "\\" not in text:
        return text, range(len(text) + 1)
    characters, begins = [], []
    for unit in _WRITTEN.finditer(text):
        characters.append(chr(int(unit["code"], 16)) if unit["code"] else unit["character"])
        begins.append(unit.start())
    return "".join(characters), [*begins, len(text)]

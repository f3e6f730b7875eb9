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
    written = {written for secret in secrets for written in _written(secret)}
    named = {part for secret in secrets for part in _parts(secret)}
    if not written:
        return text[:limit]
    text = text if limit is None else text[: limit + max(map(len, written)) * _LONGEST_ESCAPE]
    plain, begins = _read(text)
    places = [match.span() for match in _any_of(written, text)]
    places += [(begins[match.start()], begins[match.end()]) for match in _any_of(named, plain)]
    kept, done = [], 0
    for start, end in sorted(places):
        if limit is not None and start >= limit:
            break
        if start >= done:
            kept += [text[done:start], REDACTED]
        done = max(done, end)
    return "".join(kept) + text[done:limit]


def _any_of(words: Iterable[str], text: str) -> Iterator[re.Match[str]]:
    """Where one of the words begins, the longest first."""
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.finditer(pattern, text) if pattern else iter(())


def _written(secret: str) -> Iterator[str]:
    """A whole secret as it stands in a text and in a JSON string: where it has a back-slash or a character that JSON has a name for,
    it is not found by reading character by character."""
    if len(secret) >= _SHORTEST:
        yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])


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

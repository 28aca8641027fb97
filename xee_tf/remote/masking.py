"""Mask credentials in texts of servers, which may repeat the headers of a request in any encoding."""

from __future__ import annotations

import base64
import codecs
import html
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

__all__ = ["Secrets", "mask"]

_WITHHELD = "(The message is not shown, because it contains the credentials of the request.)"
_LENGTH = 8  # of the parts of a secret that must not be shown
_DIGITS = 15  # the same for codes of characters, which are more likely to be found by chance
_PREFIX = re.compile(r"\b0[xob]", re.IGNORECASE)  # of numbers
# Headers of google-auth that contain nothing secret, such as the name of a project.
_PUBLIC = frozenset({"x-goog-user-project", "x-allowed-locations", "x-goog-api-client"})
_ESCAPE = re.compile(r"\\(?:u\{?|U0000|x)([0-9a-fA-F]{2,6})\}?")


class Secrets:
    """The most recent credentials that a client has sent (they change when refreshed); not shown by repr.

    Examples
    --------
    >>> sent = Secrets()
    >>> sent.add({"authorization": "Bearer secret-token"})
    >>> sent.masked("secret-token has expired.")
    '... has expired.'
    """

    def __init__(self) -> None:
        self._values: deque[str] = deque(maxlen=8)

    def add(self, headers: Mapping[str, str]) -> None:
        """Add the headers of a request; short values, such as numbers, are no credentials."""
        for name, value in headers.items():
            if name.lower() not in _PUBLIC:
                found = {value, value.rpartition(" ")[2]} - set(self._values)
                self._values.extend(each for each in found if len(each) >= _LENGTH)

    def masked(self, text: str) -> str:
        """Return a text without the credentials; see `mask`."""
        return mask(text, list(self._values))


def mask(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a text by "..."; if a part of one remains in any known encoding, return none of it.

    Parts of 11 letters and digits are found, whatever their case and whatever separates them: as they are or
    reversed, in base64, base32 or base85, as codes of characters, or with percent, HTML or backslash escapes.

    Examples
    --------
    >>> mask("Bearer secret-token is not valid.", ["secret-token"])
    'Bearer ... is not valid.'
    >>> mask("Invalid: c2VjcmV0LXRva2Vu", ["secret-token"])
    '(The message is not shown, because it contains the credentials of the request.)'
    """
    found = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    if not text or not found:
        return text
    for secret in found:
        text = text.replace(secret, "...")
    parts = {part for secret in found for form in _forms(secret) for part in _parts(_letters(form))}
    for view in _views(text):
        letters = _letters(view)
        for length in {len(part) for part in parts}:
            if any(letters[start : start + length] in parts for start in range(len(letters) - length + 1)):
                return _WITHHELD
    return text


def _letters(text: str) -> str:
    """Return the letters and digits of a text in lower case."""
    return re.sub(r"[\W_]+", "", text).lower()


def _parts(letters: str) -> Iterator[str]:
    """Yield every fourth part of a secret: a text with 11 of its letters contains one of them."""
    length = min(len(letters), _DIGITS if letters.isdecimal() else _LENGTH)
    return (letters[start : start + length] for start in range(0, len(letters) - length + 1, 4) if letters)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret in encodings that `_views` does not decode."""
    percent = quote(secret, safe="")
    yield from (secret, percent, quote(percent, safe=""), codecs.encode(secret, "rot13"))
    yield from _encoded(secret.encode())
    yield from _encoded(secret[::-1].encode())
    yield from _base64(secret.encode().hex().encode())
    for form in _base64(secret.encode()):
        yield form.encode().hex()
        yield from _base64(form.encode())


def _encoded(data: bytes) -> Iterator[str]:
    yield from _base64(data)
    for start in range(5):
        yield base64.b32encode(data[start : start + (len(data) - start) // 5 * 5]).decode()
    for start in range(4):
        yield base64.b85encode(data[start:]).decode()
    yield data.hex()
    for digits in ("d", "03o", "08b"):
        yield "".join(f"{code:{digits}}" for code in data)


def _base64(data: bytes) -> Iterator[str]:
    for start in range(3):  # a secret may be in the middle of an encoded text
        yield base64.b64encode(data[start : start + (len(data) - start) // 3 * 3]).decode()


def _views(text: str) -> Iterator[str]:
    """Yield a text as it is, and with escapes replaced; forwards and backwards."""
    for _ in range(3):
        yield from (text, text[::-1], _PREFIX.sub("", text))
        plain = _ESCAPE.sub(lambda match: chr(min(int(match[1], 16), 0x10FFFF)), html.unescape(unquote(text)))
        if plain == text:
            return
        text = plain

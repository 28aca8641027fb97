"""What comes back from a server, over HTTP or gRPC: in one form, so that one place decides what to do."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "words_of"]

_RETRIED = frozenset({408, 429, 502, 503, 504})
_MOST_WORDS = 500


@dataclass(frozen=True)
class Answer:
    """What a server answered, or why it did not.

    Parameters
    ----------
    code : int
        The HTTP status; of gRPC, the one that TensorFlow Serving has for it. 0: there was no answer.
    status : str
        The same for people: ``HTTP 503``, ``UNAVAILABLE``, ``no answer``.
    body : bytes
        Of a success.
    words : str
        What the server, or the library on the way to it, says of a failure.
    passing : bool
        Of a failure without an answer: whether it may be another time.
    retry_after : float, optional
        Seconds that the server asks to wait.
    seconds : float
        From sending to the last byte.
    """

    code: int
    status: str
    body: bytes = b""
    words: str = ""
    passing: bool = False
    retry_after: float | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether `body` is what was asked for."""
        return self.code == 200

    @property
    def throttled(self) -> bool:
        """Whether the server has too much to do."""
        return self.code == 429

    @property
    def worth_retrying(self) -> bool:
        """Whether the same request may succeed later.

        Examples
        --------
        >>> Answer(503, "HTTP 503").worth_retrying, Answer(400, "HTTP 400").worth_retrying
        (True, False)
        """
        return self.passing or self.code in _RETRIED


def words_of(body: bytes) -> str:
    """The words of an error: of TensorFlow Serving's JSON, of Google's, of a page of HTML, of plain text.

    Examples
    --------
    >>> words_of(b'{"error": "Servable not found"}')
    'Servable not found'
    >>> words_of(b'{"error": {"code": 404, "message": "No such endpoint.", "status": "NOT_FOUND"}}')
    'No such endpoint.'
    >>> words_of(b"<html><head><title>502 Bad Gateway</title></head><body><p>nginx</p></body></html>")
    '502 Bad Gateway nginx'
    """
    text = body[:65536].decode(errors="replace").strip()
    try:
        text = _said(json.loads(text)) or text
    except (ValueError, RecursionError):
        if text[:1] == "<":
            text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", text)
            text = html.unescape(re.sub(r"<[^>]*>", " ", text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _MOST_WORDS else text[:_MOST_WORDS] + " ..."


def _said(message: Any) -> str:
    """The message in JSON, wherever it is; empty if there is none."""
    if isinstance(message, list) and message:
        return _said(message[0])
    if isinstance(message, dict):
        for key in ("error", "message", "detail"):
            if found := _said(message.get(key)):
                return found
    return message if isinstance(message, str) else ""

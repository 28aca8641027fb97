"""Credentials in storage options.

Those of Azure are checked before the first request, which its client repeats for a minute without them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakSet

from fsspec.asyn import sync

from xee_tf.errors import StorageError, shorten

__all__ = ["is_shown", "require_credentials"]

_SCOPE = "https://storage.azure.com/.default"
_SHORTEST = 8  # characters of a secret
_checked: WeakSet[Any] = WeakSet()  # filesystems


def require_credentials(fs: Any, url: str) -> None:
    """Raise `StorageError` if a filesystem of Azure has a source of tokens that gives none."""
    credential: Any = getattr(fs, "credential", None)
    if not hasattr(fs, "service_client") or not hasattr(credential, "get_token") or fs in _checked:
        return
    try:
        sync(fs.loop, _get_token, credential)
    except Exception as error:
        raise StorageError(
            f"Cannot open {url}: no credentials were found ({shorten(str(error), 200)}). Pass them as "
            "storage_options={...}, log in with az login, or read a public container with "
            "storage_options={'anon': True}."
        ) from error
    _checked.add(fs)


def is_shown(options: Mapping[str, Any], error: BaseException) -> bool:
    """Return whether the text of an error, or of one that caused it, contains a value of storage options.

    URLs and short values are no secrets.

    Examples
    --------
    >>> is_shown({"token": "ya29.secret"}, ValueError("The token ya29.secret has expired."))
    True
    """
    secrets = [text for text in _texts(options) if len(text) >= _SHORTEST and "://" not in text]
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and not any(each is other for other in seen):
            seen.append(each)
            waiting += [each.__cause__, each.__context__]
    return any(secret in f"{each} {each!r}" for each in seen for secret in secrets)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


async def _get_token(credential: Any) -> None:
    """Get a token from credentials, whose methods may be synchronous."""
    found = credential.get_token(_SCOPE)
    if inspect.isawaitable(found):
        await found

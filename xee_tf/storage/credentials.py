"""Credentials in storage options.

Those of Azure are checked before the first request, which its client repeats for a minute without them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

from fsspec.asyn import sync

from xee_tf.errors import StorageError, shorten

__all__ = ["contains_secret", "mask_secrets", "require_credentials"]

_SCOPE = "https://storage.azure.com/.default"
_SHORTEST = 8  # characters of a text that is masked also inside of words

# Names of options whose values are no secrets. All other texts may be.
_PUBLIC = frozenset(
    {"access", "account_name", "addressing_style", "consistency", "profile", "project", "region_name"}
    | {"signature_version", "target_protocol"}
)
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


def mask_secrets(options: Mapping[str, Any], text: str) -> str:
    """Replace the values of storage options in a text, except those that are no secrets.

    A short value is replaced only where it is a whole word.

    Examples
    --------
    >>> mask_secrets({"token": "ya29.secret", "project": "forest"}, "ya29.secret has expired in forest.")
    '*** has expired in forest.'
    """
    for secret in sorted(set(_secrets(options)), key=len, reverse=True):
        for each in {secret, repr(secret)[1:-1]}:
            is_short = len(each) < _SHORTEST
            text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)" if is_short else re.escape(each), "***", text)
    return text


def contains_secret(options: Mapping[str, Any], error: BaseException) -> bool:
    """Return whether an error, or one that caused it, contains what `mask_secrets` replaces."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and not any(each is other for other in seen):
            seen.append(each)
            waiting += [each.__cause__, each.__context__]
    return any(mask_secrets(options, text) != text for each in seen for text in (str(each), repr(each)))


def _secrets(value: Any) -> Iterator[str]:
    """Yield the texts in storage options that may be secrets; of a URL, its password and its query."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        if re.match(r"\w+://", value) is None:
            found: list[str | None] = [value]
        else:
            try:
                parts = urlsplit(value)
                found = [parts.password, parts.query]
            except ValueError:  # no valid URL
                found = [value]
        yield from (text for text in found if text)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if name not in _PUBLIC:
                yield from _secrets(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets(each)


async def _get_token(credential: Any) -> None:
    """Get a token from credentials, whose methods may be synchronous."""
    found = credential.get_token(_SCOPE)
    if inspect.isawaitable(found):
        await found

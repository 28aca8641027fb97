"""Check credentials of Azure before the first request, which its client repeats for a minute without them."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakSet

from fsspec.asyn import sync

from xee_tf.errors import StorageError, shorten

__all__ = ["require_credentials"]

_SCOPE = "https://storage.azure.com/.default"
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


async def _get_token(credential: Any) -> None:
    """Get a token from credentials, whose methods may be synchronous."""
    found = credential.get_token(_SCOPE)
    if inspect.isawaitable(found):
        await found

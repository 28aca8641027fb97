"""A store that creates no folders on its own, like those on SFTP servers."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

__all__ = ["StrictFileSystem"]


class StrictFileSystem(LocalFileSystem):
    """Local files under another protocol, ``strict://``."""

    protocol = "strict"

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=False, **options)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return LocalFileSystem._strip_protocol(str(path).removeprefix("strict://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"strict://{self._strip_protocol(name)}"


fsspec.register_implementation("strict", StrictFileSystem, clobber=True)

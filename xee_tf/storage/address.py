"""The address of a file: its URL, its filesystem, and the addresses of the files around it.

Nothing is read or written here, and the filesystem is opened only when it is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import fsspec

from xee_tf.errors import DestinationError, OptionError, shorten
from xee_tf.options import check_storage_options
from xee_tf.storage.equivalents import explain_object
from xee_tf.storage.filesystems import (
    BUCKETS,
    WEB,
    check_characters,
    check_slashes,
    has_wildcard,
    open_filesystem,
)
from xee_tf.storage.processes import temporary_name

__all__ = ["Address", "PathLike"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Address:
    """A picklable path on any filesystem; see `xee_tf.storage.Location`, which accesses the file.

    It is path-like: `os.fspath` returns the local path, or the URL (without storage options) of another
    store.

    Parameters
    ----------
    url : str
        A local path or an fsspec URL ("s3://bucket/scene").
    storage_options : mapping
        Options for fsspec. Never included in a repr, because they may contain credentials.
    etag : str, default ""
        The ETag of the version of an object in S3 that is read; other versions raise an error.

    Examples
    --------
    >>> scene = Address.of("memory://exports/scene")
    >>> scene.with_suffix("-mixer.json").name
    'scene-mixer.json'
    >>> os.fspath(scene)
    'memory://exports/scene'
    """

    url: str
    # Not hashed: a mapping is not hashable, and xarray requires hashable paths.
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    etag: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, path: PathLike | Address, storage_options: Mapping[str, Any] | None = None) -> Self:
        """Create an address from a string, a `pathlib.Path`, or a `upath.UPath` with its own options.

        A local path becomes absolute: it is resolved in the current directory of the caller, not of the
        process that uses it. Trailing slashes are removed, as are repeated slashes in a URL.

        Raises
        ------
        DestinationError
            If the path is empty, has characters that no path can have, or is a URL without its second slash.
        OptionError
            If `path` is not a string or path-like.

        Examples
        --------
        >>> Address.of("out/scene").url == os.path.abspath("out/scene")
        True
        """
        if isinstance(path, Address):
            return cls.of(path.url, path.storage_options)
        check_storage_options(storage_options)
        given: Any = path  # a UPath need not be an os.PathLike
        options = dict(getattr(given, "storage_options", None) or {})
        options.update(storage_options or {})
        if not isinstance(given, str | os.PathLike) and not hasattr(given, "storage_options"):
            raise OptionError(
                "A path must be a string or path-like, such as 'out/scene'; got "
                f"{shorten(repr(path))}. {explain_object(given)}".rstrip()
            )
        # str() of a UPath includes its scheme.
        text = str(path)
        if not text:
            raise DestinationError("The path is empty: pass a name such as 'out/scene'.")
        check_characters(text)
        for link in text.split("::"):
            check_slashes(link, given)
        if "::" in text:
            return cls(text, options)
        scheme, separator, rest = text.partition("://")
        if separator and scheme not in ("file", "local"):
            if scheme not in WEB:  # repeated slashes may be significant to web servers
                rest = re.sub("//+", "/", rest)
            return cls(f"{scheme}://{rest.rstrip('/') if rest.strip('/') else rest}", options)
        return cls(os.path.abspath(os.path.expanduser(rest if separator else text)), options)

    def __getstate__(self) -> dict[str, Any]:
        # Without the filesystem instance, which cannot be shared between processes.
        return {"url": self.url, "storage_options": self.storage_options, "etag": self.etag}

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        # Makes results path-like. Libraries that accept paths also accept URLs as strings.
        return self.url

    # -- The filesystem ----------------------------------------------------------------------------

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, path = open_filesystem(self.url, self.storage_options)
        if self._link[1] and self._link[0].endswith("://"):  # fsspec takes the path of the next link
            path = ""
        return filesystem, path

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem."""
        return self._opened[0]

    @property
    def fresh_fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem with its listings cache cleared, because other processes may write to it."""
        if not self.is_local:
            self.fs.invalidate_cache()
        return self.fs

    @property
    def path(self) -> str:
        """The path in the form that the filesystem uses."""
        return self._opened[1]

    @property
    def protocols(self) -> frozenset[str]:
        """The names of the filesystem, such as "s3"."""
        protocol = self.fs.protocol
        return frozenset((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is on a local disk, where files can be renamed and read by other libraries."""
        return "file" in self.protocols

    @property
    def is_s3(self) -> bool:
        """Whether it is in S3, or in a store with the same interface."""
        return "s3" in self.protocols

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which is read-only."""
        return bool(self.protocols & WEB)

    @property
    def bucket(self) -> str | None:
        """The bucket or container of an object store; None for other filesystems."""
        protocols = self.protocols | {self._link[0].partition("://")[0].rpartition("::")[2]}  # behind a cache
        return self.path.strip("/").partition("/")[0] if protocols & BUCKETS else None

    @property
    def key(self) -> str:
        """The name of the object in its bucket."""
        return self.path.strip("/").partition("/")[2]

    @property
    def zarr_options(self) -> dict[str, Any] | None:
        """The storage options for Zarr; None for local folders."""
        return None if self.is_local else dict(self.storage_options) or None

    # -- Names -------------------------------------------------------------------------------------

    @cached_property
    def _link(self) -> tuple[str, str]:
        """The URL up to the end of the path, and the archive that holds it: ``zip://scene::/maps.zip``."""
        links = self.url.split("::")
        # A protocol without a path is a cache, which uses the path of the next link.
        number = next((i for i, link in enumerate(links[:-1]) if "://" in link), len(links) - 1)
        path, archive = "::".join(links[: number + 1]), "::".join(links[number + 1 :])
        return path.replace(os.sep, "/"), archive and f"::{archive}"

    def _with_path(self, path: str) -> Self:
        return type(self)(path + self._link[1], self.storage_options)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self._link[0].rsplit("/", 1)[-1]

    @property
    def file_name(self) -> str:
        """The last component of the path, without the query that URLs of web servers may have."""
        link = self._link[0].rpartition("::")[2]
        return urlsplit(link).path.rpartition("/")[2] if link.partition("://")[0] in WEB else self.name

    @property
    def parent(self) -> Self:
        """The parent folder."""
        head, slash, _ = self._link[0].rpartition("/")
        # "memory://" and Windows drives such as "D:/" keep their slash.
        is_root = head.endswith(":/") or (len(head) == 2 and head[1] == ":")
        return self._with_path(f"{head}/" if is_root else head or slash or ".")

    @property
    def is_root(self) -> bool:
        """Whether it is a whole bucket or web server, to whose name no suffix can be appended."""
        host = self.url.startswith(("http://", "https://")) and self.url.count("/") == 2
        return host or (self.bucket is not None and self.path.strip("/") == self.bucket)

    @property
    def is_pattern(self) -> bool:
        """Whether it may be a glob pattern, such as ``out/scene-*.tfrecord.gz``."""
        return has_wildcard(self.url)

    def child(self, name: str) -> Self:
        """Return the address of `name` inside this folder."""
        path = self._link[0]
        return self._with_path(path + name if path.endswith("://") else f"{path.rstrip('/')}/{name}")

    def sibling(self, name: str) -> Self:
        """Return the address of `name` in the same folder."""
        path = self._link[0]
        return self._with_path(path[: len(path) - len(self.name)] + name)

    def with_suffix(self, suffix: str) -> Self:
        """Return the address with `suffix` appended."""
        return self._with_path(self._link[0] + suffix)

    def without_suffix(self, *suffixes: str) -> Self:
        """Return the address without the first of `suffixes` that matches."""
        path = self._link[0]
        suffix = next((suffix for suffix in suffixes if path.endswith(suffix)), "")
        return self._with_path(path.removesuffix(suffix))

    def temporary(self) -> Self:
        """Return the address of a temporary file in the same folder; see `temporary_name`."""
        return self.parent.child(temporary_name(self.name))

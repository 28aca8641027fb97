"""Versions of installed packages, for bug reports."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TextIO

from xee_tf.version import __version__

__all__ = ["show_versions"]

_DISTRIBUTION = "xee-tf"

# Extras for developers of xee_tf.
_DEVELOPER_EXTRAS = frozenset({"dev", "test", "test-core"})

# Packages that are not in any extra, but that xee_tf or xarray use if they are installed.
_USED_IF_INSTALLED = (
    "adlfs",
    "earthengine-api",
    "gcsfs",
    "h5netcdf",
    "keras",
    "netcdf4",
    "protobuf",
    "s3fs",
    "tensorflow-cpu",
    "xee",
)


def show_versions(file: TextIO | None = None) -> None:
    """Print the versions of Python, xee_tf, and its required and optional dependencies.

    No package is imported, so this also works if an import fails.

    Parameters
    ----------
    file : file-like, optional
        Text file to print to. Default: standard output.

    Examples
    --------
    >>> show_versions()
    xee_tf: ...
    Python: 3...
    platform: ...
    <BLANKLINE>
    adlfs: ...
    affine: 3...
    ...
    """
    lines = [
        f"xee_tf: {__version__}",
        f"Python: {platform.python_version()} ({platform.python_implementation()})",
        f"platform: {platform.platform()}",
        "",
        *(f"{name}: {_version(name)}" for name in _packages()),
    ]
    print("\n".join(lines), file=file or sys.stdout)


def _packages() -> list[str]:
    """Return the sorted names of the packages."""
    try:
        requirements = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # imported from a checkout that is not installed
        requirements = []
    names = set(_USED_IF_INSTALLED)
    for requirement in requirements:
        extra = re.search(r"""\bextra\s*==\s*["']([^"']+)["']""", requirement)
        if extra is None or extra[1] not in _DEVELOPER_EXTRAS:
            names.add(re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower())
    return sorted(names - {_DISTRIBUTION})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

"""What is installed beside xee_tf, for reports of bugs."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TextIO

from xee_tf.version import __version__

__all__ = ["show_versions"]

_DISTRIBUTION = "xee-tf"

#: Extras for those who work on xee_tf itself.
_FOR_DEVELOPERS = frozenset({"dev", "test", "test-core"})

#: Packages that no extra asks for, and that xee_tf or xarray use where they are installed.
_USED_IF_PRESENT = (
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
    """Print the versions of Python, of xee_tf, and of every package that it uses or can use.

    Nothing is imported for it, so that it works where an import fails.

    Parameters
    ----------
    file : file-like, optional
        Where to print. Default: standard output.

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
    """The names of all packages to show, sorted."""
    try:
        requirements = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a copy of the repository
        requirements = []
    names = set(_USED_IF_PRESENT)
    for requirement in requirements:
        extra = re.search(r"""\bextra\s*==\s*["']([^"']+)["']""", requirement)
        if extra is None or extra[1] not in _FOR_DEVELOPERS:
            names.add(re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower())
    return sorted(names - {_DISTRIBUTION})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

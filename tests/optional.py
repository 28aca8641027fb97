"""What tests need beside pytest, hypothesis and an xee_tf without extras.

A test that needs another package says so in its first line, ``pytest.importorskip("keras")``; a module of
tests above its imports. A module that needs a package in some tests only has ``tf = optional("tensorflow")``,
which does the same where it is used. So such tests are skipped, with the name of the package, where it is
absent; tests/test_extras.py fails if one is absent that should be there.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

__all__ = ["optional"]


def optional(module: str, attribute: str | None = None) -> Any:
    """A module, or what it has; where it is not installed, a stand-in that skips the test that uses it."""
    try:
        found = import_module(module)
    except ImportError:
        return _Absent(module)
    return found if attribute is None else getattr(found, attribute)


class _Absent:
    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by Python and pytest, of everything in a module
            raise AttributeError(name)
        return pytest.importorskip(self._module, exc_type=ImportError)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return pytest.importorskip(self._module, exc_type=ImportError)

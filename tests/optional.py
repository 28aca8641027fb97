"""Optional packages of tests: all except pytest, hypothesis and the core dependencies of xee_tf.

A test that needs an optional package calls ``pytest.importorskip("keras")`` in its first line; a test module
calls it before its imports. If only some tests of a module need it, the module defines
``tf = optional("tensorflow")``, which skips the tests that use it if the package is not installed.
tests/test_extras.py fails if a package is not installed that should be.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

__all__ = ["RECORD_IMPORTS", "optional"]

RECORD_IMPORTS = """
import sys

class Recorder:
    names = set()

    def find_spec(name, *_):
        Recorder.names.add(name.partition(".")[0])

sys.meta_path.insert(0, Recorder)
"""
"""Code that records the packages that a process tries to import, whether they are installed or not."""


def optional(module: str, attribute: str | None = None) -> Any:
    """Import a module or its attribute; if it is not installed, return an object that skips its users."""
    try:
        imported = import_module(module)
    except ImportError:
        return _Missing(module)
    return imported if attribute is None else getattr(imported, attribute)


class _Missing:
    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python and pytest look these up for all objects of a module
            raise AttributeError(name)
        return pytest.importorskip(self._module, exc_type=ImportError)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return pytest.importorskip(self._module, exc_type=ImportError)

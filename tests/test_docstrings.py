"""The docstrings of everything public, as numpydoc validates them."""

import inspect
from collections.abc import Iterator

import pytest

import xee_tf

validation = pytest.importorskip("numpydoc.validate")

# What is not asked of a docstring: a See Also section, an extended summary, the layout of its quotes.
OMITTED = {"ES01", "SA01", "GL01", "GL02"}
# And of a property, an alias of a method or an error class, whose summary is all that there is to write.
SHORT = OMITTED | {"EX01", "RT01", "PR01", "SS05", "SS06", "YD01"}


def public() -> Iterator[tuple[str, bool]]:
    """Names of the public objects and their members, and whether a summary is enough."""
    for name in xee_tf.__all__:
        found = getattr(xee_tf, name)
        if inspect.ismodule(found) or not callable(found):
            continue
        yield name, inspect.isclass(found) and issubclass(found, Exception)
        if inspect.isclass(found) and not issubclass(found, Exception):
            for member, value in vars(found).items():
                if not member.startswith("_") and (callable(value) or hasattr(value, "__func__")):
                    yield f"{name}.{member}", False
                elif isinstance(value, property):
                    yield f"{name}.{member}", True


@pytest.mark.parametrize(("name", "short"), public())
def test_numpydoc(name: str, short: bool) -> None:
    errors = validation.validate(f"xee_tf.{name}")["errors"]
    assert [error for error in errors if error[0] not in (SHORT if short else OMITTED)] == []

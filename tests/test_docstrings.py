"""The docstrings of everything public, as numpydoc validates them."""

import inspect
import re
from collections.abc import Iterator

import pytest

import xee_tf

validation = pytest.importorskip("numpydoc.validate")

# Not required: a See Also section, an extended summary, and a layout of the quotes.
OMITTED = {"ES01", "SA01", "GL01", "GL02"}
# Properties and exceptions need only a summary; methods need no example if their class has one.
SHORT = OMITTED | {"EX01", "RT01", "PR01", "SS05", "SS06", "YD01"}


def public() -> Iterator[tuple[str, bool]]:
    """Return the names of the public objects and their members, and whether a summary is enough."""
    for name in xee_tf.__all__:
        found = getattr(xee_tf, name)
        if inspect.ismodule(found) or not callable(found):
            continue
        yield name, inspect.isclass(found) and issubclass(found, Exception)
        if inspect.isclass(found) and not issubclass(found, Exception):
            for member, value in vars(found).items():
                if not member.startswith("_") and (callable(value) or hasattr(value, "__func__")):
                    yield f"{name}.{member}", False
                elif not member.startswith("_") and isinstance(value, property):
                    yield f"{name}.{member}", True


@pytest.mark.parametrize(("name", "short"), list(public()))
def test_numpydoc(name: str, short: bool) -> None:
    omitted = set(SHORT if short else OMITTED)
    if "Examples\n" in (inspect.getdoc(getattr(xee_tf, name.partition(".")[0])) or ""):
        omitted.add("EX01")
    errors = [(code, text) for code, text in validation.validate(f"xee_tf.{name}")["errors"]]
    # Private fields of dataclasses, and the constructor that Python gives to protocols.
    undocumented = re.compile(r"Parameters \{('_\w+'|'\*args'|'\*\*kwargs'|, )+\} not documented")
    assert [e for e in errors if e[0] not in omitted and not undocumented.fullmatch(e[1])] == []

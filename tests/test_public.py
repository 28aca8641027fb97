"""What the package shows: names, signatures and the types in them."""

import ast
import builtins
import collections.abc
import inspect
import typing
from collections.abc import Iterator

import pytest

import xee_tf
import xee_tf.typing

# Types of other packages, as signatures write them; their modules are left out ("xr.Dataset").
OTHERS = {
    "AbstractFileSystem",
    "Affine",
    "ArrayLike",
    "Axes",
    "DTypeLike",
    "DataArray",
    "Dataset",
    "Delayed",
    "ExitStack",
    "FixedLenFeature",
    "InitVar",
    "NDArray",
    "TextIO",
    "bool_",
    "int64",
    "date",
    "datetime64",
}
KNOWN = {
    *dir(builtins),
    *collections.abc.__all__,
    *typing.__all__,
    *OTHERS,
    *xee_tf.__all__,
    *xee_tf.typing.__all__,
}


def annotations() -> Iterator[tuple[str, str]]:
    """Names of the public functions, methods, properties and fields, and every annotation of each."""
    for name in [each for each in xee_tf.__all__ if each != "typing"]:
        found = getattr(xee_tf, name)
        if not inspect.isclass(found):
            yield from signature(name, found)
        elif not issubclass(found, Exception):
            for base in found.__mro__:
                for field, kind in vars(base).get("__annotations__", {}).items():
                    if not field.startswith("_"):
                        yield f"{name}.{field}", str(kind)
            for member, value in inspect.getmembers(found):
                if member.startswith("_") and member not in ("__init__", "__call__"):
                    continue
                if member == "__init__" and hasattr(found, "__dataclass_fields__"):
                    continue  # its fields are above
                value = value.fget if isinstance(value, property) else value
                if callable(value) and inspect.isroutine(value):
                    yield from signature(f"{name}.{member}", value)


def signature(name: str, function: typing.Any) -> Iterator[tuple[str, str]]:
    found = inspect.signature(function)
    for kind in [found.return_annotation, *(each.annotation for each in found.parameters.values())]:
        if kind is not inspect.Parameter.empty:
            yield name, kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def types_in(annotation: str) -> set[str]:
    """Names of the types in an annotation; values of a Literal are none."""
    found = set()
    nodes = [ast.parse(annotation, mode="eval").body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif not (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"):
            nodes += ast.iter_child_nodes(node)
    return found


def test_all_types_in_public_signatures_are_public() -> None:
    found = {(name, kind) for name, text in annotations() for kind in types_in(text)}
    assert len(found) > 300
    assert {(name, kind) for name, kind in found if kind not in KNOWN} == set()


def test_completion_lists_public_names() -> None:
    assert dir(xee_tf) == sorted([*xee_tf.__all__, "__version__"])


@pytest.mark.parametrize(
    "function",
    [
        xee_tf.TFExportAccessor.__call__,
        xee_tf.TFExportAccessor.plan,
        xee_tf.TFExportAccessor.table,
        xee_tf.Model.plan,
        xee_tf.Model.predict_image,
        xee_tf.Model.predict_properties,
        *(getattr(xee_tf.Model, name) for name in dir(xee_tf.Model) if name.startswith("from_")),
    ],
    ids=lambda function: function.__qualname__,
)
def test_help_explains_every_option(function: typing.Any) -> None:
    """A parameter of the signature has an entry of its own, or shares one, under Parameters."""
    text = inspect.getdoc(function) or ""
    described = {
        name
        for line in text.splitlines()
        if line and not line.startswith(" ")
        for name in line.partition(" : ")[0].split(", ")
    }
    assert set(inspect.signature(function).parameters) - {"self", "cls"} - described == set()

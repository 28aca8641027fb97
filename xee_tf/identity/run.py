"""The identity of a run: everything that changes its result, to resume only the same run."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import is_dask_collection

from xee_tf.errors import OptionError, excerpt
from xee_tf.geometry import Size
from xee_tf.identity.content import Hasher, content_hash, hash_bytes
from xee_tf.identity.files import UnknownContentError
from xee_tf.identity.graphs import input_hash, input_hasher
from xee_tf.options import Options, option

__all__ = [
    "Content",
    "IdentityOptions",
    "RunIdentity",
    "array_attributes",
    "explain_other",
    "run_identity",
]

_FORMAT = 7  # of the JSON; 1 to 4 were descriptions of predictions only
_SHOWN = 200  # characters of a value in a message
_PART_BYTES = 64 << 20  # an array that is not lazy is hashed in parts of this size
_VOUCH = (
    "If you know that it is the same, name its version in every run, from the first one on, as in "
    "identity='2024-05'"
)
_COMPARED = (
    "files and Zarr stores are compared by path, size and time, arrays in memory by value, and functions by "
    "their code, all in the same chunks; random numbers without a seed are different in every session"
)


def _read_identity(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise OptionError(
            f"{name} must be a text that names the version of the inputs, such as '2024-05'; got "
            f"{excerpt(value)}."
        )
    return value


@dataclass(frozen=True, kw_only=True)
class IdentityOptions(Options):
    """Options of functions that resume an interrupted run.

    Parameters
    ----------
    identity : str, optional
        A name for the version of the inputs, such as "2024-05", if you know that their values are the same in
        every run with this name; the inputs are then not compared. By default, a run is resumed only if the
        inputs are the same: arrays in memory by value; NetCDF and Zarr, and what rasterio opens, by path,
        size and modification time (in object stores, by ETag or time); and the functions that are applied to
        them by their code, with the constants, variables and functions of your own modules that they use,
        and the versions of installed packages. Comments and docstrings have no effect. These
        changes are not noticed: what a function reads by itself, except local files whose paths are arguments
        of its Dask tasks; variables and containers that the function itself changes, such as caches and
        counters, except numpy arrays; attributes of xarray objects that the function uses; what it looks up
        by a text, as in ``globals()["K"]`` or with importlib; and values in a ``threading.local``. The
        results of ``dask.delayed``, arrays that are persisted on a cluster, and stores without times or ETags
        cannot be compared: they are resumed only with `identity`, specified from the first run on.
    """

    identity: str | None = option(None, _read_identity)


@dataclass(frozen=True)
class Content:
    """One part of the identity of a run.

    Parameters
    ----------
    value : str or None
        A text or hash that is compared; None if it cannot be determined.
    shown : str or mapping of str to str, default ""
        What messages show of it: a text, or the text of each attribute, of which the first one that differs
        is shown.
    advice : str, default ""
        What to do if the value is None, and otherwise what is compared.
    """

    value: str | None
    shown: str | Mapping[str, str] = ""
    advice: str = ""

    @classmethod
    def of(cls, value: Any) -> Content:
        """Hash an object by its content."""
        return cls(content_hash(value))


@dataclass(frozen=True)
class RunIdentity:
    """The identity of a run.

    Parameters
    ----------
    parts : mapping of str to Content
        Everything that changes the result, by its name in messages, such as "the option blend".

    Examples
    --------
    >>> one, two = (run_identity({"the option edge": edge}, {"B4": np.ones(4)}) for edge in ("drop", "pad"))
    >>> one.digest == two.digest
    False
    >>> two.explain_difference(one.to_json())
    'the option edge was drop and is now pad'
    """

    parts: Mapping[str, Content]

    @property
    def digest(self) -> str:
        """A hash of all parts. If one cannot be determined, it is different from all others."""
        values = [[name, _value(part)] for name, part in sorted(self.parts.items())]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    @property
    def is_known(self) -> bool:
        """Whether all parts can be determined."""
        return all(part.value is not None for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """Return the parts in JSON's types, to store them with an unfinished result."""
        parts = {name: [_value(part), part.shown] for name, part in self.parts.items()}
        return {"format": _FORMAT, "parts": parts}

    def explain_difference(self, stored: Any) -> str:
        """Return how this run differs from the run with the given `to_json`; empty if it does not."""
        if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT:
            return "it was written by another version of xee_tf"
        before = _stored_parts(stored.get("parts"))
        if before is None:
            return "the description of what it was written from is damaged"
        for name, part in self.parts.items():
            if name not in before:
                return f"{name} was not part of it"
            value, shown = before[name]
            if part.value is None:
                return f"it cannot be determined whether {name} is the same as before: {part.advice}"
            if value == part.value:
                continue
            if shown != part.shown:
                return _difference(name, shown, part.shown)
            return f"{name} is not the same as before" + (f" ({part.advice})" if part.advice else "")
        return next((f"{name} is missing now" for name in before if name not in self.parts), "")


def _difference(name: str, before: str | Mapping[str, str], now: str | Mapping[str, str]) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [each for each in {**now, **before} if before.get(each) != now.get(each)]
        name, before, now = f"{names[0]} of {name}", before.get(names[0], "None"), now.get(names[0], "None")
    before, now = str(before), str(now)
    # Long texts are cut where they differ.
    same = len(os.path.commonprefix([before, now])) if max(len(before), len(now)) > _SHOWN else 0  # noqa: RUF071
    start = max(0, same - _SHOWN // 4)
    subject = name.partition(" of ")[0]
    was, is_now = ("were", "are") if subject.endswith("s") and " option " not in subject else ("was", "is")
    return f"{name} {was} {_cut(before, start)} and {is_now} now {_cut(now, start)}"


def _cut(text: str, start: int) -> str:
    end = start + _SHOWN
    return ("..." if start else "") + " ".join(text[start:end].split()) + ("..." if text[end:] else "")


def _stored_parts(found: Any) -> Mapping[str, tuple[str, str | Mapping[str, str]]] | None:
    """Return the parts in a description from `RunIdentity.to_json`; None if they are not valid."""
    valid = isinstance(found, Mapping) and all(
        isinstance(part, Sequence) and len(part) == 2 and _are_texts([part[0]]) and _is_shown(part[1])
        for part in found.values()
    )
    return found if valid else None


def _is_shown(found: Any) -> bool:
    return _are_texts(found.values() if isinstance(found, Mapping) else [found])


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


def explain_other(identity: RunIdentity, stored: Any) -> str:
    """Return how a run differs from a complete result whose identity is stored; empty if it does not."""
    if stored is None:
        return "it was not written with if_exists='resume', so that it cannot be compared"
    return identity.explain_difference(stored)


def run_identity(
    parts: Mapping[str, Any], inputs: Mapping[str, Any], identity: str | None = None
) -> RunIdentity:
    """Determine the identity of a run.

    Parameters
    ----------
    parts : mapping of str to Content or object
        Options, grids, the model and so on, in the order in which differences are reported. The keys are
        names for messages, such as "the option blend". Values that are no `Content` are compared as text;
        of dataclasses, messages show the field that differs.
    inputs : mapping of str to object
        Arrays and tables by name: of xarray, numpy, pandas or Dask.
    identity : str, optional
        See `IdentityOptions`.

    Returns
    -------
    RunIdentity
        The identity, in which inputs are named "the input 'B4'".
    """
    found = {"the option identity": Content(str(identity), repr(identity))}
    for name, part in parts.items():
        found[name] = part if isinstance(part, Content) else Content(str(part), _shown(part))
    hasher = input_hasher()
    for name, value in inputs.items():
        found[f"the input {name!r}"] = _input(value, identity, hasher)
    return RunIdentity(found)


def _shown(value: Any) -> str | dict[str, str]:
    if is_dataclass(value) and not isinstance(value, Size):
        return {each.name: _text(getattr(value, each.name)) for each in fields(value)}
    return _text(value)


def _text(value: Any) -> str:
    """Return what messages show of a value: no brackets and no names of classes."""
    if isinstance(value, Size):
        return f"{value.x} x {value.y}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        items = {str(key): _text(each) for key, each in value.items()}
        return ", ".join(f"{key}: {text}" if text else key for key, text in items.items()) or "none"
    if is_dataclass(value):
        known = {each.name: getattr(value, each.name) for each in fields(value)}
        return " ".join(f"{name} {_text(each)}" for name, each in known.items() if each is not None)
    return str(value)


def array_attributes(
    dtype: Any, dims: Sequence[Hashable], shape: Sequence[int], chunks: Sequence[Sequence[int]] | None
) -> dict[str, str]:
    """Return what messages show of an array, whose dimensions need not have names.

    Examples
    --------
    >>> array_attributes(np.dtype("int16"), ("y", "x"), (9, 8), ((4, 4, 1), (8,)))
    {'dtype': 'int16', 'sizes': 'y: 9, x: 8', 'chunks': 'y: 4, x: 8'}
    """
    largest = [max(sizes, default=0) for sizes in chunks or ()]
    shown = {"dtype": str(dtype), "sizes": _sizes(dims, shape)}
    return {**shown, "chunks": _sizes(dims, largest)} if chunks is not None else shown


def _sizes(dims: Sequence[Hashable], sizes: Sequence[int]) -> str:
    if not dims:
        return str(tuple(sizes))
    return ", ".join(f"{dim}: {size}" for dim, size in zip(dims, sizes, strict=False))


def _input(value: Any, identity: str | None, hasher: Hasher) -> Content:
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", ())
    dims = tuple(getattr(value, "dims", ()))
    shown: dict[str, str] = {}
    if dtype is not None:
        chunks = getattr(value, "chunks", None)
        shown = array_attributes(dtype, dims, shape, chunks if isinstance(chunks, tuple) else None)
    try:
        compared = f"named {identity}" if identity is not None else _input_hash(value, hasher)
    except UnknownContentError as error:
        return Content(None, shown, f"{error}. {_VOUCH}")
    # Chunks of an array with a name may be different.
    kind = [shown.get(name, "") for name in ("dtype", "sizes")]
    return Content(hash_bytes([text.encode() for text in (compared, *kind)]).hex(), shown, _COMPARED)


def _input_hash(value: Any, hasher: Hasher) -> str:
    if not isinstance(value, xr.DataArray | xr.Variable):
        return input_hash(value, hasher)
    if is_dask_collection(value.data if value.chunks is not None else None):
        return input_hash(value.data, hasher)
    return _values_hash(value)


def _values_hash(array: xr.DataArray | xr.Variable) -> str:
    """Return a hash of the values of an array, which may be in a file and is read part by part."""
    longest: Hashable = max(array.dims, key=lambda dim: array.sizes[dim], default=None)
    if longest is None:
        return hash_bytes([Hasher().digest(np.asarray(array.values))]).hex()
    step = max(1, _PART_BYTES * array.sizes[longest] // max(array.nbytes, 1))
    parts = range(0, array.sizes[longest], step)
    hasher = Hasher()
    values = (np.asarray(array.isel({longest: slice(start, start + step)}).values) for start in parts)
    return hash_bytes([hasher.digest(part) for part in values]).hex()


def _value(part: Content) -> str:
    return part.value if part.value is not None else f"unknown {uuid.uuid4().hex}"

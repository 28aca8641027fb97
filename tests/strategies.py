"""Shared Hypothesis strategies, and how many examples they give."""

import os
from itertools import pairwise

import numpy as np
import pyproj
from affine import Affine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.optional import optional
from xee_tf.geometry import Size
from xee_tf.georef import GeoRef
from xee_tf.records import Feature, RecordLayout

ml_dtypes = optional("ml_dtypes")

RANDOM = os.environ.get("XEE_TF_RANDOM_EXAMPLES", "0") == "1"
EXTRAS = os.environ.get("XEE_TF_EXTRAS", "all") == "all"


def examples(count: int) -> settings:
    """Return settings with so many examples for `make test-full` with all extras.

    All other runs get a quarter, but at least ten or `count`: `make test` must be fast, and the runs without
    extras test the same code.
    """
    return settings(max_examples=count if RANDOM and EXTRAS else max(count // 4, min(count, 10)))


# -- Geometry: sizes, affine transforms, CRSs --------------------------------------------------------


def sizes(min_side: int = 1, max_side: int = 40) -> st.SearchStrategy[Size]:
    """Return a strategy for widths and heights in pixels."""
    side = st.integers(min_side, max_side)
    return st.builds(Size, x=side, y=side)


@st.composite
def affines(draw: st.DrawFn, *, sheared: bool = True) -> Affine:
    """Draw an invertible affine transform of any scale and sign, with or without shear."""
    scale = st.sampled_from([1.0, 28.5, 30.0, 0.05, 8.983152841195215e-05]) | st.floats(1e-6, 1e5)
    sign = st.sampled_from([1.0, -1.0])
    origin = st.floats(-1e7, 1e7)
    a, e = draw(scale) * draw(sign), draw(scale) * -draw(sign)
    b = d = 0.0
    if sheared and draw(st.booleans()):
        # |b * d| < |a * e|, so that it is not close to degenerate
        b, d = draw(st.floats(-0.7, 0.7)) * abs(e), draw(st.floats(-0.7, 0.7)) * abs(a)
    return Affine(a, b, draw(origin), d, e, draw(origin))


# CRSs for the coordinates of `georefs`: geographic, projected, and without a code.
CRS_TEXTS = (
    "EPSG:4326",
    "EPSG:32119",
    "EPSG:3035",
    "ESRI:54009",
    "+proj=laea +lat_0=10 +lon_0=20 +ellps=GRS80 +units=m",
)


@st.composite
def georefs(draw: st.DrawFn, *, sheared: bool = True, min_side: int = 2) -> GeoRef:
    """Draw a CRS, an affine transform and a shape."""
    crs = pyproj.CRS(draw(st.sampled_from(CRS_TEXTS)))
    return GeoRef(crs, draw(affines(sheared=sheared)), draw(sizes(min_side)))


# -- Chunks ------------------------------------------------------------------------------------------


@st.composite
def chunkings(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    """Draw irregular chunk sizes that add up to `length`."""
    cuts = draw(st.sets(st.integers(1, length - 1), max_size=6)) if length > 1 else set()
    edges = [0, *sorted(cuts), length]
    return tuple(b - a for a, b in pairwise(edges))


def indices(length: int) -> st.SearchStrategy[int | slice]:
    """Return a strategy for basic indices of an axis."""
    # xarray fails on empty slices with a negative step (range object index out of range)
    slices = st.slices(length).filter(lambda s: bool(range(length)[s]) or (s.step or 1) > 0)
    return st.integers(-length, length - 1) | slices


# -- Records -----------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
"""Names of bands: any string that UTF-8 can encode."""

_STORED = {
    "float": st.just("<f4"),
    "bytes": st.just("|u1"),
    "int64": st.sampled_from(["<i8", "<i2", "|i1", "<u4"]),
}


@st.composite
def features(draw: st.DrawFn, *, max_size: int = 12) -> Feature:
    """Draw a feature of a record, of any kind."""
    kind = draw(st.sampled_from(["float", "bytes", "int64"]))
    return Feature(draw(names), kind, draw(st.integers(1, max_size)), draw(_STORED[kind]))


def layouts(max_features: int = 4, max_size: int = 12) -> st.SearchStrategy[RecordLayout]:
    """Return a strategy for layouts of records."""
    many = st.lists(
        features(max_size=max_size), min_size=1, max_size=max_features, unique_by=lambda f: f.name
    )
    return many.map(lambda drawn: RecordLayout(tuple(drawn)))


@st.composite
def layouts_and_values(draw: st.DrawFn, *, max_records: int = 4) -> tuple[RecordLayout, list[np.ndarray]]:
    """Draw a layout, and for each feature an array (records, size) with any bit patterns."""
    layout = draw(layouts())
    count = draw(st.integers(0, max_records))
    values = [draw(arrays(np.dtype(feature.dtype), (count, feature.size))) for feature in layout.features]
    return layout, values


# -- Tensors -----------------------------------------------------------------------------------------

TENSOR_DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "bool", "object"),
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
)


@st.composite
def tensor_arrays(draw: st.DrawFn, dtypes: tuple[str, ...] = TENSOR_DTYPES) -> np.ndarray:
    """Draw an array of any dtype of TensorProto, with any bit patterns; strings are bytes."""
    name = draw(st.sampled_from(dtypes))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    if name == "object":
        return draw(arrays(object, shape, elements=st.binary(max_size=5), fill=st.nothing()))
    if name == "bfloat16":
        return draw(arrays("uint16", shape)).view(ml_dtypes.bfloat16)
    return draw(arrays(name, shape))

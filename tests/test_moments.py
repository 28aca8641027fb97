"""Exact sums of values, compared with fractions."""

import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xee_tf.moments import Moments, Tally, merge_moments

DTYPES = [
    "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64",
]  # fmt: skip
PLACES = [
    (0, 50),
    (3e4, 5),
    (1e9, 1),
    (1e12, 1),
    (5, 0),
    (0, 0),
    (2.0**62, 900),
    (1e200, 1e190),
    (1e-200, 1e-203),
]


def tally(units, masked=None, source=None):
    found = Tally(np.dtype(source or units.dtype))
    found.add(units, masked)
    return found.moments()


def drawn(dtype, offset, scale, shape, seed):
    values = np.random.default_rng(seed).normal(0, 1, shape) * scale + offset
    if np.dtype(dtype).kind == "b":
        return values > offset
    if np.dtype(dtype).kind == "f":
        largest = float(np.finfo(dtype).max)
        return np.clip(values, -largest, largest).astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(values, float(info.min), np.nextafter(float(info.max), 0)).astype(dtype)


def exactly(values):
    """Return the mean and the standard deviation of values, computed with fractions."""
    numbers = [
        Fraction(number) if isinstance(number, float) else Fraction(int(number)) for number in values.tolist()
    ]
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    if variance > Fraction(10) ** 300:
        return mean, math.sqrt(variance / Fraction(2) ** 1200) * 2.0**600
    return mean, math.sqrt(variance)


@given(
    st.sampled_from(DTYPES), st.sampled_from(PLACES), st.sampled_from([0.0, 0.3, 1.0]),
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 999),
)  # fmt: skip
def test_moments_are_exact(dtype, place, missing, shape, seed):
    values = drawn(dtype, *place, shape, seed)
    masked = np.random.default_rng(seed).random(shape) < missing
    if values.dtype.kind == "f":
        values[masked] = np.nan
    found = tally(values, masked).statistics()
    valid = values[~masked]
    assert (found.count, found.masked) == (valid.size, masked.sum())
    if not valid.size:
        assert all(math.isnan(number) for number in (found.min, found.max, found.mean, found.std))
        return
    assert (found.min, found.max) == (valid.min(), valid.max())
    mean, deviation = exactly(valid)
    assert abs(Fraction(found.mean) - mean) <= abs(mean) * Fraction(1, 10**15) + Fraction(1, 10**300)
    assert found.std == pytest.approx(deviation, rel=1e-12, abs=1e-300)
    if valid.dtype.kind == "f" or int(valid.max()) - int(valid.min()) > 255:
        assert found.classes is None
    else:
        labels, counts = np.unique(valid, return_counts=True)
        assert found.classes == {int(a): int(b) for a, b in zip(labels, counts, strict=True)}


@given(st.sampled_from(DTYPES), st.sampled_from(PLACES[:5]), st.integers(0, 999), st.data())
def test_the_order_of_units_does_not_matter(dtype, place, seed, data):
    values = drawn(dtype, *place, (24, 1, 3, 5), seed)
    masked = np.random.default_rng(seed).random(values.shape) < 0.2
    order = np.array(data.draw(st.permutations(range(24))))
    cuts = sorted({0, 24, *data.draw(st.lists(st.integers(0, 24), max_size=6))})
    whole = tally(values, masked)
    parts = [order[a:b] for a, b in pairwise(cuts)]
    assert merge_moments([tally(values[part], masked[part]) for part in parts]) == whole
    one = Tally(values.dtype)
    for part in parts:
        one.add(values[part], masked[part])
    assert one.moments() == whole


@pytest.mark.parametrize("size", [1, 7, 8192, 8193, 20_000, 65_536, 150_000])
def test_large_units_do_not_depend_on_their_neighbors(size):
    """np.einsum adds rows of more than 8192 values in a different order if they are not alone."""
    values = drawn("float64", 100, 30, (3, 1, 1, size), size)
    values = np.concatenate([values, drawn("float64", 1e9, 1, (2, 1, 1, size), size)])
    assert merge_moments([tally(values[number : number + 1]) for number in range(5)]) == tally(values)


def test_high_units_are_divided():
    values = drawn("float32", 3000, 500, (2, 2, 700, 300), 0)
    found = tally(values).statistics()
    assert found.mean == pytest.approx(values.mean(dtype="f8"), rel=1e-15)
    assert found.std == pytest.approx(values.std(dtype="f8"), rel=1e-12)


@pytest.mark.parametrize(
    ("some", "mean"), [([math.inf], math.inf), ([-math.inf], -math.inf), ([math.inf, -math.inf], math.nan)]
)
def test_infinite_values_in_any_unit(some, mean):
    values = np.ones((4, 1, 2, 2))
    for number, each in enumerate(some):
        values[number, 0, 1, 0] = each
    for parts in ([values], np.split(values, 4)):
        found = merge_moments([tally(part) for part in parts]).statistics()
        np.testing.assert_equal(found.mean, mean)
        assert math.isnan(found.std)
        assert found.count == 16


def test_float_arrays_of_integer_bands_have_classes():
    values = np.array([3.0, 5.0, 5.0, 200.0], "float32").reshape(1, 1, 2, 2)
    assert tally(values, source="int16").statistics().classes == {3: 1, 5: 2, 200: 1}
    found = merge_moments([tally(values, source="int16"), tally(values + 100, source="int16")])
    assert found.classes is None
    assert (found.least, found.greatest) == (3, 300)


@given(st.sampled_from(DTYPES), st.sampled_from(PLACES), st.integers(0, 99))
def test_json(dtype, place, seed):
    moments = tally(drawn(dtype, *place, (2, 1, 3, 3), seed))
    assert Moments.from_json(json.loads(json.dumps(moments.to_json()))) == moments


def test_negative_zero_does_not_depend_on_the_order():
    zeros = np.array([0.0, -0.0]).reshape(2, 1, 1, 1)
    for order in ([0, 1], [1, 0]):
        found = tally(zeros[order])
        assert (math.copysign(1, found.least), math.copysign(1, found.greatest)) == (1, 1)

"""Tests of the numbers that a dtype can represent."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xee_tf.dtypes import FLOAT32_EXACT, FLOAT64_EXACT, convert_number, nodata_candidates

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@pytest.mark.parametrize(
    ("number", "dtype", "held"),
    [
        (1e39, "float32", None),
        (-7e4, "float16", None),
        (65504.0, "float16", 65504.0),
        (math.inf, "float32", math.inf),
        (10**400, "float64", None),
        (2.5, "uint8", None),
        (np.float32(2.5), "int16", None),
        (np.float32(3), "int16", 3),
        (math.inf, "int32", None),
        (math.nan, "int32", None),
        (float(2**64), "uint64", 2**64 - 1),  # the nearest float64 to both
        (2**64 - 1, "uint64", 2**64 - 1),
        (-129, "int8", None),
    ],
)
def test_numbers_that_a_dtype_can_represent(number, dtype, held):
    assert convert_number(number, np.dtype(dtype)) == held
    assert math.isnan(convert_number(math.nan, np.dtype("float32")))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_nodata_candidates_are_limits_with_exact_values_first(dtype):
    values, limits = nodata_candidates(np.dtype(dtype)), np.iinfo(dtype)
    assert len(set(values)) == len(values)
    assert {int(limits.min), int(limits.max)} <= set(values)
    assert int(float(values[0])) == values[0] == convert_number(values[0], np.dtype(dtype))


def test_largest_exact_integers_of_floats():
    for dtype, exact in ((np.float32, FLOAT32_EXACT), (np.float64, FLOAT64_EXACT + 1)):
        assert int(dtype(exact)) == exact
        assert int(dtype(exact + 1)) != exact + 1

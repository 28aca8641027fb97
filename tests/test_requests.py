"""Tests of the number of requests that readers make to a bucket."""

from __future__ import annotations

import numpy as np
import pytest

import xee_tf
from tests.rasters import random_band, raster

OPTIONS = {"patch_dimensions": 16, "max_file_size": 9000}


def image(seed=0):
    return raster({name: random_band((96, 96), seed=seed + number) for number, name in enumerate("abc")})


def kinds(bucket):
    return dict(bucket.proxy.totals().kinds)


@pytest.mark.parametrize("options", [{}, {"compressed": False}, {"feature_types": "band"}])
@pytest.mark.parametrize("source", ["scene-mixer.json", "scene"])
def test_opening_and_one_window(bucket, options, source):
    result = image().tfexport(f"{bucket.url}/run/scene", storage_options=bucket.options, **OPTIONS, **options)
    assert len(result.files) >= 3
    bucket.proxy.reset()
    opened = xee_tf.open_image(f"{bucket.url}/run/{source}", storage_options=bucket.options)
    listings = 1 + (source == "scene")
    assert kinds(bucket) == {"list": listings, "get": 3}  # the mixer, the manifest and a record
    bucket.proxy.reset()
    window = opened.b[20:23, 40:45].values
    np.testing.assert_array_equal(window, image().b[20:23, 40:45])
    assert kinds(bucket) == {"get": 1}

"""Tests of the number of requests that readers make to a bucket."""

from __future__ import annotations

import numpy as np
import pytest

import xee_tf
from tests.conftest import every_bucket
from tests.rasters import random_band, raster

OPTIONS = {"patch_dimensions": 16, "max_file_size": 9000}


def image(seed=0):
    return raster({name: random_band((96, 96), seed=seed + number) for number, name in enumerate("abc")})


def kinds(bucket):
    return dict(bucket.proxy.totals().kinds)


@every_bucket
@pytest.mark.parametrize("options", [{}, {"compressed": False}, {"feature_types": "band"}])
@pytest.mark.parametrize("source", ["scene-mixer.json", "scene"])
def test_opening_and_one_window(bucket, options, source):
    result = image().tfexport(f"{bucket.url}/run/scene", storage_options=bucket.options, **OPTIONS, **options)
    assert len(result.files) >= 3
    bucket.proxy.reset()
    opened = xee_tf.open_image(f"{bucket.url}/run/{source}", storage_options=bucket.options)
    listings = 1 + (source == "scene")
    expected = {"list": listings, "get": 3}  # the mixer, the manifest and a record
    # Before each listing, adlfs asks whether the folder is an object.
    assert kinds(bucket) == (expected | {"head": listings} if bucket.scheme == "az" else expected)
    bucket.proxy.reset()
    window = opened.b[20:23, 40:45].values
    np.testing.assert_array_equal(window, image().b[20:23, 40:45])
    assert kinds(bucket) == {"get": 1}


@every_bucket
def test_objects_that_are_replaced_or_removed_after_opening(bucket):
    url = f"{bucket.url}/run/scene"
    result = image().tfexport(url, storage_options=bucket.options, **OPTIONS, compressed=False)
    opened = xee_tf.open_image(result, storage_options=bucket.options)
    objects = bucket.read()
    first, second = (key for key in list(objects)[:2])
    bucket.restore({**objects, second: objects[first]})
    with pytest.raises(xee_tf.RecordError, match=r"scene-00001.tfrecord was replaced or modified after"):
        opened.load()
    bucket.restore({key: data for key, data in objects.items() if key != second})
    with pytest.raises(xee_tf.MissingShardError, match=rf"{url}-00001.tfrecord does not exist"):
        opened.load()
    with pytest.raises(xee_tf.MissingShardError, match=rf"Shard 1 of {url}-mixer.json is missing"):
        xee_tf.open_image(result, storage_options=bucket.options)
    bucket.restore(objects)
    np.testing.assert_array_equal(opened.b, image().b)

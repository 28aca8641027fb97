"""Classes that only occur in the margins of patches are known to training, too."""

import numpy as np
import pytest

import xee_tf
from tests.rasters import raster
from xee_tf.errors import OptionError
from xee_tf.moments import Moments, merge_moments
from xee_tf.sidecars import read_manifest

SIZE = 8


def scene():
    """Return labels 0 to 3, of which 7 is only outside the first three patches and 9 is masked."""
    labels = np.random.default_rng(3).integers(1, 4, (26, 26)).astype("uint8")
    labels[3, 25] = 7
    labels[24:, 2] = 9
    ds = raster({"B4": np.ones((26, 26), "f4"), "label": labels})
    ds["label"].attrs["nodata"] = 9
    return ds


def expected_classes(ds, grid, patches):
    """Return the values in the patches with their margins, and the numbers of those in the patches."""
    values = ds["label"].values
    stored, inner = set(), []
    for patch in patches:
        halo, core = grid.halo(patch), grid.core(patch)
        stored |= set(values[max(halo.top, 0) : halo.bottom, max(halo.left, 0) : halo.right].ravel().tolist())
        inner.append(values[core.slices].ravel())
    counts = dict(
        zip(*map(np.ndarray.tolist, np.unique(np.concatenate(inner), return_counts=True)), strict=True)
    )
    return {value: counts.get(value, 0) for value in sorted(stored - {9})}


@pytest.mark.parametrize("chunks", [26, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 4},
        {"kernel_size": (6, 1)},
        {"kernel_size": 4, "sample": 4, "seed": 1},
        {"kernel_size": 4, "collapse_bands": True, "max_file_size": 3000},
        {"kernel_size": 4, "feature_types": "band", "index": True},
        {"patch_dimensions": (8, 5)},
    ],
)
def test_classes_of_margins_have_the_count_0(tmp_path, options, chunks):
    if "index" in options:
        pytest.importorskip("geopandas")
    ds = scene()
    options = {"patch_dimensions": SIZE} | options
    result = ds.chunk(y=chunks, x=chunks).tfexport(tmp_path / "t", **options)
    plan = ds.tfexport.plan(**options)
    patches = range(len(plan.grid)) if plan.selection is None else plan.selection.patches.tolist()
    found = read_manifest(result.manifest).statistics["label"].classes
    assert dict(found) == expected_classes(ds, result.grid, patches)


def test_class_vectors_weights_and_masks(tmp_path):
    pytest.importorskip("tensorflow")
    ds = scene()
    ds.tfexport(tmp_path / "t", patch_dimensions=SIZE, kernel_size=4, default_value=0)
    options = {"inputs": "B4", "targets": "label", "batch_size": 9}

    def read(**given):
        return next(iter(xee_tf.tf_dataset(tmp_path / "t", **options, **given).as_numpy_iterator()))

    (_, plain), (_, vectors) = read(), read(one_hot=True)
    assert vectors.shape[-1] == 8
    np.testing.assert_array_equal(vectors, plain == np.arange(8))
    assert read(one_hot=True, target_margins="trim")[1].shape == (9, SIZE, SIZE, 4)
    assert read(one_hot=True, margins="trim")[1].shape[-1] == 4
    _, labels, weights = read(class_weight={7: 5, 2: 3})
    np.testing.assert_array_equal(
        weights, np.select([labels == 0, labels == 7, labels == 2], [0, 5, 3], 1)[..., 0]
    )
    # 7 as the value of masked pixels is ambiguous only if margins are read.
    ds.tfexport(tmp_path / "seven", patch_dimensions=SIZE, kernel_size=4, default_value=7)
    options["sample_weight"] = "mask"
    source = tmp_path / "seven"
    with pytest.raises(OptionError, match="have the value 7, which valid pixels may have, too"):
        xee_tf.tf_dataset(source, **options)
    _, labels, weights = next(iter(xee_tf.tf_dataset(source, margins="trim", **options).as_numpy_iterator()))
    np.testing.assert_array_equal(weights, labels[..., 0] != 7)


def test_too_many_values_in_margins():
    one = Moments(3, 0, 0, 2, 0, 0, {0: 1, 2: 2}, frozenset(range(200)))
    other = Moments(around=frozenset(range(100, 400)))
    assert merge_moments([one, Moments(around=frozenset([250]))]).statistics().classes[250] == 0
    assert merge_moments([other, one]).statistics().classes is None
    assert merge_moments([merge_moments([other, one]), one]).statistics().classes is None
    for moments in (one, merge_moments([one, other])):
        assert Moments.from_json(moments.to_json()) == moments
    assert Moments.from_json(one.to_json()[:-1]).around == frozenset()

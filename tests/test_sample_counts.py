"""What a sample could not select is said once, with numbers: masked pixels, rare classes, large patches."""

import numpy as np
import pytest

from tests.optional import optional
from tests.rasters import CRS, raster
from xee_tf.errors import OptionError
from xee_tf.export import export_image, plan_export
from xee_tf.sampling import sample_patches
from xee_tf.tables import sample_table

gpd = optional("geopandas")


def scene():
    """Return a band whose classes 2, 5 and 9 have 50, 12 and 2 pixels, two pixels of 5 being masked."""
    cover = np.full(64, 2, "uint8")
    cover[40:52], cover[62:] = 5, 9
    height = np.arange(64.0)
    height[[41, 50]] = np.nan
    ds = raster({"cover": cover.reshape(8, 8), "height": height.reshape(8, 8)})
    return ds.chunk(y=3, x=5)


def sites(rows, columns, **properties):
    xy = 7e5 + 30 * (np.array(columns) + 0.5), 5e6 - 30 * (np.array(rows) + 0.5)
    return gpd.GeoDataFrame(properties, geometry=gpd.points_from_xy(*xy), crs=CRS)


CASES = {
    "all classes": ({"n": 20, "class_band": "cover"}, r"5 \(10 of 20\), 9 \(2 of 20\)", 32),
    "some": ({"n": {9: 3, 2: 7, 4: 1}, "class_band": "cover"}, r"9 \(2 of 3\), 4 \(0 of 1\)", 9),
    "no classes": ({"n": 1070}, r"n=1,070 pixels were asked for, but there are only 62", 62),
}


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_fewer_pixels_than_asked_for(tmp_path, case, size):
    options, message, records = CASES[case]
    with pytest.warns(UserWarning, match=message) as caught:
        result = sample_table(scene(), None, tmp_path / "t", patch_dimensions=size, **options)
    assert len(caught) == 1
    assert (result.records, result.sampled, result.dropped) == (records, 64, 2)
    assert "2 of 64 pixels: masked" in repr(result)
    assert "all" in result.short
    enough = {"n": {9: 2, 5: 10, 2: 0}, "class_band": "cover"}
    assert not sample_table(scene(), None, tmp_path / "enough", patch_dimensions=size, **enough).short


@pytest.mark.parametrize("size", [None, 3])
def test_classes_of_features_that_are_all_masked(tmp_path, size):
    where = sites([5, 6, 0, 1], [1, 2, 0, 0], kind=["bog", "bog", "heath", None])
    with pytest.warns(UserWarning, match=r"bog \(0 of 1\)\."):
        result = sample_table(scene(), where, tmp_path / "t", n=1, class_band="kind", patch_dimensions=size)
    assert (result.records, result.dropped, result.sampled) == (1, 2, 4)


@pytest.mark.parametrize("size", [None, 3])
def test_masked_points_are_in_the_result(tmp_path, size):
    options = {"patch_dimensions": size, "if_exists": "resume"}
    for resumed in (False, True):
        result = sample_table(scene(), sites([5, 6, 0], [1, 2, 0]), tmp_path / "t", **options)
        assert result.resumed == resumed
        assert (result.records, result.dropped, result.sampled) == (1, 2, 3)
        assert "2 of 3 pixels: masked" in repr(result)


def test_what_is_short_is_kept_for_a_resumed_run(tmp_path):
    options = {"n": {9: 3}, "class_band": "cover", "if_exists": "resume"}
    with pytest.warns(UserWarning, match=r"9 \(2 of 3\)"):
        first = sample_table(scene(), None, tmp_path / "t", **options)
    again = sample_table(scene(), None, tmp_path / "t", **options)
    assert again.resumed
    assert again.short == first.short
    assert "9 (2 of 3)" in repr(again)


def test_fewer_patches_than_asked_for(tmp_path):
    ds = scene()
    with pytest.warns(UserWarning, match="n=17 patches were asked for, but there are only 16") as caught:
        result = export_image(ds, tmp_path / "t", patch_dimensions=2, sample=17)
    assert len(caught) == 1
    assert result.records == 16
    labels = {"n": 9, "class_band": "cover"}
    with pytest.warns(UserWarning, match=r"fewer patches than n .*: 5 \(6 of 9\), 9 \(1 of 9\)\."):
        export_image(ds, tmp_path / "c", patch_dimensions=2, sample=labels)
    plan = plan_export(ds, patch_dimensions=2)
    assert len(sample_patches(plan, 16)) == 16
    assert len(sample_patches(plan, {9: 1}, class_band=ds["cover"].rio.write_crs(CRS))) == 1


def test_patches_that_no_record_can_hold(tmp_path):
    where = sites([1], [1])
    with pytest.raises(OptionError, match=r"\(1000000, 1000000\) is too large: the 2 bands .* have 7.28 TiB"):
        sample_table(scene(), where, tmp_path / "t", patch_dimensions=10**6)
    with pytest.raises(OptionError, match=r"the 1 band of a patch have 2\.2\d GiB, but a record can have"):
        sample_table(scene(), where, tmp_path / "t", patch_dimensions=(20000, 30000), columns=["height"])
    with pytest.raises(OptionError, match=r"a patch would have .* TiB, but a record can have 2\.00 GiB"):
        plan_export(scene(), patch_dimensions=10**6, edge="pad")
    assert not list(tmp_path.iterdir())


def test_patches_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 5000})())
    where = sites([1], [1])
    sample_table(scene(), where, tmp_path / "t", patch_dimensions=12)
    with pytest.raises(OptionError, match=r"takes 5\.28 kiB of memory, and there are 4\.88 kiB"):
        sample_table(scene(), where, tmp_path / "u", patch_dimensions=13)

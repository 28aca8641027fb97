"""Earth Engine options that several kinds of calls do not support, with their replacements."""

from __future__ import annotations

__all__ = ["EXPORT_FORMATS", "EXPORT_REPLACED", "LIMITS"]

LIMITS = {
    "maxPixels": "there is no limit; omit it",
    "tileScale": "the chunks of the raster determine the memory of a task; omit it",
}
"""Options of all computations."""

_RESAMPLED = "the raster keeps its pixel grid; resample it first, for example with ds.rio.reproject({})"

EXPORT_REPLACED = LIMITS | {
    "scale": _RESAMPLED.format("ds.rio.crs, resolution=30"),
    "crsTransform": _RESAMPLED.format("'EPSG:32633', transform=..., shape=(height, width)"),
    "dimensions": _RESAMPLED.format("ds.rio.crs, shape=(height, width)"),
    "projection": _RESAMPLED.format("'EPSG:32633', resolution=30"),
    "bestEffort": "there is no limit; omit it",
    "shardSize": "the chunks of the raster determine the size of a task; omit it",
    "priority": "Dask schedules the work; omit it",
    "maxWorkers": "Dask schedules the work; omit it",
    "description": "the destination names the export; omit it",
    "folder": "it is part of the destination, as in 'folder/scene'",
    "driveFolder": "it is part of the destination, as in 'folder/scene'",
    "bucket": "it is part of the destination, as in 'gs://bucket/scene' or 's3://bucket/scene'",
    "outputBucket": "it is part of the destination, as in 'gs://bucket/scene' or 's3://bucket/scene'",
    "outputPrefix": "it is the destination, as in 'gs://bucket/scene' or 'out/scene'",
    "driveFileNamePrefix": "it is the destination, as in 'out/scene'",
    "assetId": "use a destination such as 'out/scene'",
    "append": "appending is not supported; choose another destination",
}
"""Options of all exports (``ee.batch.Export``)."""

EXPORT_FORMATS = {"tfrecord": "", "tf_record": ""}
"""Values of ``fileFormat`` that all exports accept."""

"""Options of Earth Engine that several kinds of calls do not have, and what takes their place."""

from __future__ import annotations

__all__ = ["EXPORT_FORMATS", "EXPORT_REPLACED", "LIMITS"]

LIMITS = {
    "maxPixels": "there is no limit; leave it out",
    "tileScale": "the chunks of the raster set the memory of a task; leave it out",
}
"""Of all computations."""

_RESAMPLED = "the raster keeps its own pixels; resample it first, for example with ds.rio.reproject({})"

EXPORT_REPLACED = LIMITS | {
    "scale": _RESAMPLED.format("ds.rio.crs, resolution=30"),
    "crsTransform": _RESAMPLED.format("'EPSG:32633', transform=..., shape=(height, width)"),
    "dimensions": _RESAMPLED.format("ds.rio.crs, shape=(height, width)"),
    "projection": _RESAMPLED.format("'EPSG:32633', resolution=30"),
    "bestEffort": "there is no limit; leave it out",
    "shardSize": "the chunks of the raster set the size of a task; leave it out",
    "priority": "Dask schedules the work; leave it out",
    "maxWorkers": "Dask schedules the work; leave it out",
    "description": "the path names the export; leave it out",
    "folder": "it is part of the path, as in 'folder/scene'",
    "driveFolder": "it is part of the path, as in 'folder/scene'",
    "bucket": "it is part of the path, as in 'gs://bucket/scene' or 's3://bucket/scene'",
    "outputBucket": "it is part of the path, as in 'gs://bucket/scene' or 's3://bucket/scene'",
    "outputPrefix": "it is the path, as in 'gs://bucket/scene' or 'out/scene'",
    "driveFileNamePrefix": "it is the path, as in 'out/scene'",
    "assetId": "give a path, such as 'out/scene'",
    "overwrite": "if_exists='overwrite' replaces what is there",
    "append": "files are never added to; choose another path",
}
"""Of all exports: ``ee.batch.Export``."""

EXPORT_FORMATS = {"tfrecord": "", "tf_record": ""}
"""Values of ``fileFormat`` for what all exports write."""

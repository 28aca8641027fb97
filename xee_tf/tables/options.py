"""Spellings of the options of tables, with the names that Earth Engine uses."""

from __future__ import annotations

from dataclasses import replace

from xee_tf.options import EXPORT_FORMATS, EXPORT_REPLACED, READ_SPELLING, Spelling

__all__ = ["READ_TABLE_SPELLING", "SAMPLE_SPELLING", "TABLE_SPELLING"]

READ_TABLE_SPELLING = replace(READ_SPELLING, aliases={"selectors": "columns", "bands": "columns"})
"""Spellings of the options of `xee_tf.open_table`."""

_REPLACED = EXPORT_REPLACED | {"formatOptions": "it applies to images only; omit it"}
_FRAME = "Write the table itself with {}"
_FORMATS = EXPORT_FORMATS | {
    "tf_record_table": "",
    "csv": _FRAME.format("table.to_csv('sites.csv')"),
    "geojson": _FRAME.format("table.to_file('sites.geojson')"),
    "geo_json": _FRAME.format("table.to_file('sites.geojson')"),
    "kml": _FRAME.format("table.to_file('sites.kml')"),
    "kmz": _FRAME.format("table.to_file('sites.kml')"),
    "shp": _FRAME.format("table.to_file('sites.shp')"),
    "parquet": _FRAME.format("table.to_parquet('sites.parquet')"),
}

TABLE_SPELLING = Spelling(
    "options of a table",
    aliases={"fileNamePrefix": "destination", "collection": "table", "selectors": "columns"},
    replaced=_REPLACED
    | {
        "maxVertices": "only points are written; omit it",
        "ingestionTimeParameters": "it applies to feature views only; omit it",
        "image": "export a raster with export_image, or sample it with sample_table",
    },
    formats=_FORMATS,
    renamed={"path": "destination"},
)
"""Spellings of the options of a table export: ``ee.batch.Export.table`` and this package."""

SAMPLE_SPELLING = Spelling(
    "options of a sample",
    aliases={
        "fileNamePrefix": "destination",
        "collection": "where",
        "region": "where",
        "numPoints": "n",
        "numPixels": "n",
        "selectors": "columns",
    },
    replaced=_REPLACED
    | {
        "classValues": "pass n={class: pixels}, the number of pixels per class",
        "classPoints": "pass n={class: pixels}, the number of pixels per class",
        "bands": "select the bands, as in ds[['B4', 'B3']], or the columns to write with columns=[...]",
        "factor": "pass n=1000, the number of pixels",
        "geometries": "geometry='lonlat' writes longitude and latitude, geometry=None omits them",
        "maxVertices": "geometries are not written; omit it",
        "kernel": "pass patch_dimensions=(33, 33), the size of the patch around each point",
        "kernelSize": "pass patch_dimensions=(33, 33), the size of the patch around each point",
        "sequenceData": "array bands become patches with one channel for each step; omit it",
    },
    formats=_FORMATS,
    renamed={"path": "destination"},
)
"""Spellings of the options of a sample: ``sampleRegions``, ``stratifiedSample`` and this package."""

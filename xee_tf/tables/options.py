"""How the options of tables are spelled: Earth Engine's names, and what takes the place of some."""

from __future__ import annotations

from xee_tf.options import EXPORT_FORMATS, EXPORT_REPLACED, Spelling

__all__ = ["SAMPLE_SPELLING", "TABLE_SPELLING"]

_REPLACED = EXPORT_REPLACED | {"formatOptions": "they are of images; leave it out"}
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
        "maxVertices": "geometries are written as points; leave it out",
        "ingestionTimeParameters": "it is an option of feature views; leave it out",
        "image": "a raster is exported with export_image, and sampled with sample_table",
    },
    formats=_FORMATS,
    renamed={"path": "destination"},
)
"""How the options of a table export are written: ``ee.batch.Export.table`` and ours."""

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
        "classValues": "n={class: pixels} names the classes and how many pixels of each",
        "classPoints": "n={class: pixels} names the classes and how many pixels of each",
        "factor": "n=1000 takes so many pixels",
        "geometries": "geometry='lonlat' writes longitude and latitude, geometry=None leaves them out",
        "maxVertices": "geometries are not written; leave it out",
    },
    formats=_FORMATS,
    renamed={"path": "destination"},
)
"""How the options of a sample are written: ``sampleRegions``, ``stratifiedSample`` and ours."""

"""Tables: rows as Example records, to and from frames; pixels sampled into rows."""

from xee_tf.tables.export import TableResult, export_table
from xee_tf.tables.options import SAMPLE_SPELLING
from xee_tf.tables.read import open_table
from xee_tf.tables.sample import sample_table
from xee_tf.tables.sources import Table, geometry_column, no_table, row_dimension
from xee_tf.tables.values import column_values

__all__ = [
    "SAMPLE_SPELLING",
    "Table",
    "TableResult",
    "column_values",
    "export_table",
    "geometry_column",
    "no_table",
    "open_table",
    "row_dimension",
    "sample_table",
]

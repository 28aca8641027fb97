"""Export, read and sample tables: an Example record for each row."""

from xee_tf.tables.export import TableResult, export_table
from xee_tf.tables.options import SAMPLE_SPELLING
from xee_tf.tables.read import open_table
from xee_tf.tables.sample import sample_table
from xee_tf.tables.sources import (
    Geometry,
    Table,
    check_partition,
    geometry_column,
    row_dimension,
    table_type_error,
)
from xee_tf.tables.values import column_values

__all__ = [
    "SAMPLE_SPELLING",
    "Geometry",
    "Table",
    "TableResult",
    "check_partition",
    "column_values",
    "export_table",
    "geometry_column",
    "open_table",
    "row_dimension",
    "sample_table",
    "table_type_error",
]

"""Parse the options of exports, tables, models and predictions.

The options of a call are the fields of an `Options` class. `option` defines a field with its default and its
check. A `Spelling` lists the Earth Engine names that differ from the names of this package. `spelled` lets a
function accept its options in every spelling, and shows all of them in its signature; `parse` creates the
class from them.
"""

from xee_tf.options.checks import (
    check_default_value,
    check_flags,
    check_storage_options,
    choice,
    flag,
    integer,
    is_number,
    number,
    one_of,
    read_depths,
    read_names,
)
from xee_tf.options.classes import IfExists, Options, option, parse
from xee_tf.options.docstrings import document_options
from xee_tf.options.earth_engine import EXPORT_FORMATS, EXPORT_REPLACED, LIMITS
from xee_tf.options.spelling import (
    READ_SPELLING,
    Spelling,
    did_you_mean,
    nested_names,
    show_signature,
    spelled,
)

__all__ = [
    "EXPORT_FORMATS",
    "EXPORT_REPLACED",
    "LIMITS",
    "READ_SPELLING",
    "IfExists",
    "Options",
    "Spelling",
    "check_default_value",
    "check_flags",
    "check_storage_options",
    "choice",
    "did_you_mean",
    "document_options",
    "flag",
    "integer",
    "is_number",
    "nested_names",
    "number",
    "one_of",
    "option",
    "parse",
    "read_depths",
    "read_names",
    "show_signature",
    "spelled",
]

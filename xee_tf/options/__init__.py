"""The options of calls, by one mechanism for exports, tables, models and predictions.

The options of a call are the fields of an `Options` class, made by `option`: each has its default and its
check. A `Spelling` has the names of Earth Engine that differ from ours. `spelled` lets a function take its
options in every spelling and shows all of them in its signature; `parse` makes the class from them.
"""

from xee_tf.options.checks import (
    check_default_value,
    check_flags,
    check_storage_options,
    choice,
    flag,
    is_number,
    number,
    one_of,
    read_depths,
    whole,
)
from xee_tf.options.classes import IfExists, Options, option, parse
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
    "flag",
    "is_number",
    "nested_names",
    "number",
    "one_of",
    "option",
    "parse",
    "read_depths",
    "show_signature",
    "spelled",
    "whole",
]

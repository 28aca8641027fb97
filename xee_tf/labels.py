"""Short labels of the steps of a dimension, for use in band names and file names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import pandas as pd

from xee_tf.names import fold_case, is_utf8

__all__ = ["file_labels", "label_steps"]

_LABEL_BYTES = 120  # a file name has 255 bytes; the rest is for the prefix and the suffixes of an export


def label_steps(values: npt.NDArray[Any]) -> list[str]:
    """Return a short label for each value of a coordinate.

    Dates in any calendar are formatted as days if these are unique, else as days with the time of day. Bytes
    are decoded.

    Examples
    --------
    >>> import numpy as np
    >>> label_steps(np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"))
    ['2020-05-01', '2020-06-01']
    >>> label_steps(np.array([0.45, 0.9], "f4")), label_steps(np.array([b"VV", b"VH"]))
    (['0.45', '0.9'], ['VV', 'VH'])
    """
    forms = list(_forms(values))
    return next((labels for labels in forms if len(set(labels)) == len(labels)), forms[0])


def _forms(values: npt.NDArray[Any]) -> Iterator[list[str]]:
    """Yield lists of labels for the values of a coordinate, shortest first."""
    if values.dtype.kind == "M":
        for unit in ("D", "s"):
            yield [str(value) for value in values.astype(f"datetime64[{unit}]")]
    elif values.dtype.kind == "m":
        yield [str(value) for value in pd.to_timedelta(values.astype("timedelta64[ns]"))]
    elif _are_dates(values):
        for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
            yield [value.strftime(form).strip() for value in values]
    yield [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return "_".join(map(_text, value)) if isinstance(value, tuple) else str(value)


def _are_dates(values: npt.NDArray[Any]) -> bool:
    """Return whether values are points in time from numpy, pandas, the standard library or cftime."""
    return values.dtype.kind == "M" or (
        values.dtype.kind == "O"
        and all(
            hasattr(value, "strftime") and hasattr(value, "year") and not isinstance(value, pd.Period)
            for value in values
        )
        and not pd.isna(values).any()
    )


def file_labels(values: npt.NDArray[Any] | None, count: int) -> list[str]:
    """Return labels of the `count` steps of a dimension for use in file names.

    These are the labels of `label_steps`, with "-" in place of any character other than a letter, a digit,
    "_", "." or "-"; dates are formatted as ``20200501``. Steps are numbered instead if the labels are not
    unique on every file system (labels that differ only in case included), or if there are no values.

    Examples
    --------
    >>> import numpy as np
    >>> file_labels(np.array(["2020-05-01", "2020-06-01"], "datetime64[ns]"), 2)
    ['20200501', '20200601']
    >>> file_labels(np.array(["VV", "a/b"]), 2), file_labels(np.array(["VV", "vv"]), 2)
    (['VV', 'a-b'], ['00000', '00001'])
    """
    numbers = [f"{step:05d}" for step in range(count)]
    if values is None or len(values) != count:
        return numbers
    labels, dates = label_steps(values), _are_dates(values)
    if dates:
        labels = [re.sub("[-:]", "", label) for label in labels]
    labels = [re.sub(r"[^\w.-]+", "-", label) for label in labels]
    if _are_distinct(labels):
        return labels
    return [f"{label}_{number}" for label, number in zip(labels, numbers, strict=True)] if dates else numbers


def _are_distinct(labels: Sequence[str]) -> bool:
    """Return whether labels are valid and unique file names on every file system."""
    if len({fold_case(label) for label in labels}) != len(labels):
        return False
    return all(label and is_utf8(label) and len(label.encode()) <= _LABEL_BYTES for label in labels)

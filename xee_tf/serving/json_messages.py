"""TensorFlow Serving's JSON as a server sees it: from requests to arrays, from arrays to responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.errors import RecordError
from xee_tf.remote.payloads.json_text import json_rows, json_texts
from xee_tf.remote.payloads.json_values import (
    UNNAMED,
    array_of,
    columns_of,
    columns_of_rows,
    parse_object,
)

__all__ = ["JsonRequest", "encode_json_response"]


@dataclass(frozen=True)
class JsonRequest:
    """A request by rows (``instances``) or by columns (``inputs``).

    Parameters
    ----------
    columns : mapping from str to object
        Nested lists by name.
    signature_name : str
        Empty: the default one.
    by_columns : bool
        Whether it has ``inputs`` and so gets ``outputs``.
    """

    columns: Mapping[str, Any]
    signature_name: str
    by_columns: bool

    @classmethod
    def parse(cls, data: bytes) -> JsonRequest:
        """From JSON; NaN and the infinities as Python writes them.

        Raises
        ------
        RecordError
            If it is not JSON, has both forms or none, or rows of different names.

        Examples
        --------
        >>> request = JsonRequest.parse(b'{"instances": [[1, 2], [3, 4]]}')
        >>> request.inputs({"x": "float32"})
        {'x': array([[1., 2.],
               [3., 4.]], dtype=float32)}
        """
        message = parse_object(data, "request")
        if ("instances" in message) == ("inputs" in message):
            raise RecordError("A request holds either 'instances' (rows) or 'inputs' (columns).")
        signature_name = message.get("signature_name", "")
        if not isinstance(signature_name, str):
            raise RecordError(f"'signature_name' must be a string; got {signature_name!r}.")
        if "inputs" in message:
            return cls(columns_of(message["inputs"]), signature_name, True)
        return cls(columns_of_rows(message["instances"], "instances"), signature_name, False)

    def inputs(self, dtypes: Mapping[str, npt.DTypeLike]) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the inputs of a signature.

        Parameters
        ----------
        dtypes : mapping from str to dtype
            The inputs; object for strings.

        Raises
        ------
        RecordError
            If names are others than those of `dtypes`, values of another kind, or rows of unequal shapes.
        """
        columns = self.columns
        if set(columns) == {UNNAMED} and len(dtypes) == 1:
            columns = {next(iter(dtypes)): columns[UNNAMED]}
        if set(columns) != set(dtypes):
            got = "no names" if set(columns) == {UNNAMED} else sorted(columns)
            raise RecordError(f"The model has the inputs {sorted(dtypes)}; the request has {got}.")
        return {name: array_of(columns[name], name, dtype) for name, dtype in dtypes.items()}


def encode_json_response(outputs: Arrays, *, by_columns: bool = False) -> bytes:
    """A response, as TensorFlow Serving writes it.

    Rows of one output are bare. Strings are ``{"b64": ...}`` if the name of their output ends with
    ``_bytes``, else text.

    Parameters
    ----------
    outputs : mapping from str to ndarray
    by_columns : bool, optional
        Whether the request was by columns.

    Examples
    --------
    >>> import numpy as np
    >>> encode_json_response({"p": np.array([0.5, 1])})
    b'{"predictions":[0.5,1.0]}'
    """
    batches = {name: array[None] if by_columns else array for name, array in outputs.items()}
    texts = {name: json_texts(batch, in_base64=name.endswith("_bytes")) for name, batch in batches.items()}
    rows = next(iter(texts.values())) if len(texts) == 1 else json_rows(texts)
    if by_columns:
        return b'{"outputs":%s}' % rows[0]
    return b'{"predictions":[%s]}' % b",".join(rows)

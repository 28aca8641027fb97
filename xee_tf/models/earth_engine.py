"""Objects of earthengine-api, read without its server: what they were made of, not what they would be."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["function_call"]


def function_call(value: Any) -> tuple[str, dict[str, Any]] | None:
    """The function that an ``ee`` object is a call of, and its arguments.

    Parameters
    ----------
    value : ee.ComputedObject

    Returns
    -------
    (name, arguments) or None
        Arguments that are calls themselves are such pairs, too. None for anything else.

    Examples
    --------
    >>> class Projection:
    ...     def serialize(self):
    ...         return '''{"result": "0", "values": {"0": {"functionInvocationValue": {
    ...             "functionName": "Projection", "arguments": {"crs": {"constantValue": "EPSG:4326"}}}}}}'''
    >>> function_call(Projection())
    ('Projection', {'crs': 'EPSG:4326'})
    """
    graph = json.loads(value.serialize())
    values = graph["values"]

    def read(node: Any) -> Any:
        if "valueReference" in node:
            return read(values[node["valueReference"]])
        if "constantValue" in node:
            return node["constantValue"]
        if "arrayValue" in node:
            return [read(item) for item in node["arrayValue"]["values"]]
        call = node.get("functionInvocationValue")
        if call is None or "functionName" not in call:
            return None
        arguments = {name: read(part) for name, part in call.get("arguments", {}).items()}
        return call["functionName"], arguments

    found = read(values[graph["result"]])
    return found if isinstance(found, tuple) else None

"""Objects of earthengine-api, read from their call graph without a server."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["function_call"]


def function_call(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the name and arguments of the function call that creates an ``ee`` object.

    Parameters
    ----------
    value : ee.ComputedObject
        The object.

    Returns
    -------
    tuple of (str, dict) or None
        The name and the arguments; arguments that are calls are such tuples, too. None if the object is not
        a function call.

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

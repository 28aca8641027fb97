"""The models of a server: loaded once, found by name, version, label and signature."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE
from xee_tf.errors import OptionError
from xee_tf.models import load_signatures, read_meta_graph
from xee_tf.remote import Code
from xee_tf.serving.batching import Batcher
from xee_tf.serving.failures import RequestError
from xee_tf.serving.folders import Versions

__all__ = ["ModelVersion", "Models"]


@dataclass(frozen=True)
class ModelVersion:
    """A loaded SavedModel, with its signatures and their messages SignatureDef as the file has them."""

    name: str
    version: int
    signatures: Mapping[str, Batcher]
    signature_defs: Mapping[str, Any]

    def signature(self, name: str = "") -> Batcher:
        """One of the signatures; of an empty name the default one."""
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def; '
                f"there are {sorted(self.signatures)}.",
            )
        return found

    @classmethod
    def load(cls, name: str, version: int, folder: Path, max_batch_size: int) -> ModelVersion:
        """From a SavedModel."""
        loaded = load_signatures(str(folder), f"{name}, version {version},")
        signatures = {
            key: Batcher(connection, max_batch_size, os.cpu_count() or 1)
            for key, connection in loaded.items()
        }
        return cls(name, version, signatures, dict(read_meta_graph(str(folder)).signature_def))


class Models:
    """All models of a server.

    Parameters
    ----------
    folders : mapping from str to mapping from int to Path
        See `xee_tf.serving.folders.find_models`. All versions are loaded at once, so that a model that
        cannot be is known before anybody asks.
    labels : mapping from str to int
        Names of versions, such as ``{"stable": 1}``, of all models that have them.
    max_batch_size : int
        See `Batcher`.
    """

    def __init__(
        self, folders: Mapping[str, Versions], labels: Mapping[str, int], max_batch_size: int
    ) -> None:
        known = {version for versions in folders.values() for version in versions}
        for label, version in labels.items():
            if version not in known:
                raise OptionError(
                    f"The label {label!r} is to be version {version}; there are {sorted(known)}."
                )
        self._labels = dict(labels)
        self._models = {
            name: {
                version: ModelVersion.load(name, version, folder, max_batch_size)
                for version, folder in sorted(versions.items())
            }
            for name, versions in folders.items()
        }

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return list(self._models)

    def versions(self, name: str) -> Mapping[int, ModelVersion]:
        """All versions of a model, in their order."""
        if name not in self._models:
            raise RequestError(
                Code.NOT_FOUND,
                f"Servable not found for request: Latest({name}); there are {', '.join(self._models)}.",
            )
        return self._models[name]

    def find(self, name: str, version: int | None = None, label: str | None = None) -> ModelVersion:
        """A version of a model, by its number or one of the server's labels; by default the latest one.

        The name may be empty if there is one model.
        """
        if not name and len(self._models) > 1:
            raise RequestError(
                Code.INVALID_ARGUMENT, f"Missing the name of a model; there are {', '.join(self._models)}."
            )
        versions = self.versions(name or next(iter(self._models)))
        if label is not None:
            version = self._labels.get(label, -1)
            if version not in versions:
                raise RequestError(
                    Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}; model {name!r}."
                )
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            raise RequestError(
                Code.NOT_FOUND,
                f"Servable not found for request: Specific({name}, {version}); there are {list(versions)}.",
            )
        return versions[version]

    def at_endpoint(self, endpoint: str) -> ModelVersion:
        """The model behind an endpoint of Vertex AI: the only one, or that which the endpoint names."""
        if len(self._models) > 1 and endpoint not in self._models:
            raise RequestError(
                Code.NOT_FOUND,
                f"Endpoint {endpoint!r} was not found; this server has {', '.join(self._models)}.",
            )
        return self.find(endpoint if endpoint in self._models else "")

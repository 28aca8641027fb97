"""The models of a server, which are loaded once and found by name, version, label and signature."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE
from xee_tf.errors import OptionError, shorten
from xee_tf.models import load_signatures, read_meta_graph
from xee_tf.remote import Code, parse_int64
from xee_tf.serving.batching import Batcher
from xee_tf.serving.failures import RequestError
from xee_tf.serving.folders import Versions

__all__ = ["ModelVersion", "Models"]


@dataclass(frozen=True)
class ModelVersion:
    """A loaded SavedModel, with its signatures and the SignatureDef messages of its file."""

    name: str
    version: int
    signatures: Mapping[str, Batcher]
    signature_defs: Mapping[str, Any]

    def signature(self, name: str = "") -> Batcher:
        """Return a signature by its name; an empty name is the default signature."""
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f'Serving signature name: "{name}" not found in signature def; available: '
                f"{', '.join(sorted(self.signatures))}.",
            )
        return self.signatures[name]

    @classmethod
    def load(cls, name: str, version: int, folder: Path, max_batch_size: int) -> ModelVersion:
        """Load a SavedModel."""
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
    folders : mapping of str to mapping of int to Path
        Folders of the SavedModels by name and version; see `xee_tf.serving.folders.find_models`. All of them
        are loaded immediately, so that invalid models are found before the first request.
    labels : mapping of str to int
        Labels of versions, such as ``{"stable": 1}``, for all models that have the version.
    max_batch_size : int
        Maximum number of instances in a joined call; see `Batcher`.
    """

    def __init__(
        self, folders: Mapping[str, Versions], labels: Mapping[str, int], max_batch_size: int
    ) -> None:
        available = {version for versions in folders.values() for version in versions}
        for label, version in labels.items():
            if version not in available:
                raise OptionError(
                    f"The label {label!r} refers to version {version}, which was not found; available: "
                    f"{', '.join(map(str, sorted(available)))}."
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
        """Names of the models."""
        return list(self._models)

    def versions(self, name: str) -> Mapping[int, ModelVersion]:
        """Return all versions of a model in ascending order."""
        if name not in self._models:
            raise RequestError(
                Code.NOT_FOUND,
                f"Servable not found for request: Latest({name}); available: {', '.join(self._models)}.",
            )
        return self._models[name]

    def find(self, name: str, version: int | str | None = None, label: str | None = None) -> ModelVersion:
        """Return a version of a model by its number, which may be text, or label. Default: the latest one.

        The name may be empty if there is only one model.
        """
        if not name and len(self._models) > 1:
            raise RequestError(
                Code.INVALID_ARGUMENT, f"Missing model name; available: {', '.join(self._models)}."
            )
        versions = self.versions(name or next(iter(self._models)))
        if label is not None:
            version = self._labels.get(label, -1)
            if version not in versions:
                raise RequestError(
                    Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label} of model {name!r}."
                )
        if version is None:
            return versions[max(versions)]
        number = parse_int64(version) if isinstance(version, str) else version
        if number is None or number not in versions:
            raise RequestError(
                Code.NOT_FOUND,
                f"Servable not found for request: Specific({name}, {shorten(str(version))}); available: "
                f"{', '.join(map(str, versions))}.",
            )
        return versions[number]

    def find_endpoint(self, endpoint: str) -> ModelVersion:
        """Return the model of a Vertex AI endpoint: the only model, or the one with the endpoint's name."""
        if len(self._models) > 1 and endpoint not in self._models:
            raise RequestError(
                Code.NOT_FOUND,
                f"Endpoint {endpoint!r} was not found; available: {', '.join(self._models)}.",
            )
        return self.find(endpoint if endpoint in self._models else "")

"""What the records of an image hold: bands with their depths, a margin around patches, patches or pixels.

A mixer holds none of it. The manifest beside an export of xee_tf does; for others it is inferred from the
lengths of the lists in the first record, as far as that goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.margins import infer_margin
from xee_tf.records import (
    Feature,
    Kind,
    RecordLayout,
    decode_sequence_example,
    read_layout,
    read_sequence_layout,
)
from xee_tf.sidecars import BandDimensions, ImageManifest, distinct_dims

__all__ = [
    "Content",
    "check_depths",
    "choose_bands",
    "choose_features",
    "content_of",
    "fitting_fill",
    "infer_content",
    "order_of",
    "read_order",
    "with_depths",
]

_PIXEL = Size(x=1, y=1)
_LIMITS: dict[Kind, tuple[int, int]] = {"bytes": (0, 255), "int64": (-(2**63), 2**63 - 1)}


@dataclass(frozen=True)
class Content:
    """What the records of an image hold.

    Parameters
    ----------
    bands : tuple of BandDimensions
    margin : Size
        Pixels on every side of a stored patch that are not its own.
    per_patch : int
        Records for a patch: 1, or as many as it has pixels.
    coords : mapping from dimension to ndarray
    fill : float
        What stands for the steps that a SequenceExample lacks.
    """

    bands: tuple[BandDimensions, ...]
    margin: Size
    per_patch: int
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    fill: float = 0

    @property
    def depths(self) -> dict[str, int]:
        """Values per pixel of each feature."""
        return _depths(self.bands)


def content_of(
    order: RecordLayout,
    manifest: ImageManifest,
    patch: Size,
    kernel: Size | None = None,
    steps: Mapping[str, int] | None = None,
) -> Content | None:
    """What records hold by their manifest; None where they cannot be those that it describes.

    Parameters
    ----------
    order : RecordLayout
        The features of the first record.
    manifest : ImageManifest
    patch : Size
        Pixels of a patch without its margin.
    kernel : Size, optional
        What the user says.
    steps : mapping from feature to int, optional
        Steps of the series in the first record.
    """
    features = {feature.name: feature for feature in order.features}
    depths = _depths(manifest.bands)
    if depths.keys() != features.keys():  # one that the manifest lacks would be left out without a word
        return None
    margin = Size(x=0, y=0)
    found = steps or {}
    series = {feature.name for feature in order.sequences or ()}
    for band in manifest.bands:  # a series without a step does not tell its kind
        silent = band.feature in series and not found.get(band.feature)
        if band.kind and not silent and band.kind != features[band.feature].kind:
            return None
    if manifest.record == "SequenceExample":
        per_patch = patch.pixels
        if series != _series(manifest.bands) or manifest.kernel not in (None, _PIXEL):
            return None
        for name, depth in depths.items():
            count = found.get(name, depth) if name in series else depth
            if features[name].size != 1 or count > depth or (count < depth and not manifest.ragged):
                return None
    else:
        per_patch = 1
        if order.sequences is not None:
            return None
        pixels = {divmod(features[name].size, depth) for name, depth in depths.items()}
        (stored, rest), *others = pixels
        if rest or others:
            return None
        if kernel is None and manifest.kernel is not None:
            margin = PatchGrid.margin_of(manifest.kernel)
            if PatchGrid(patch, patch, margin).stored.pixels != stored:
                return None
        else:
            margin = infer_margin(patch, stored, kernel=kernel, band=manifest.bands[0].name)
    return Content(manifest.bands, margin, per_patch, manifest.coords, manifest.default_value)


def order_of(manifest: ImageManifest) -> RecordLayout | None:
    """The features of the records of an export without any; None where its manifest does not tell."""
    depths, kinds = _depths(manifest.bands), {band.feature: band.kind for band in manifest.bands}
    if manifest.grid is None:
        return None
    pixels = 1 if manifest.record == "SequenceExample" else manifest.grid.stored.pixels
    series = _series(manifest.bands) if manifest.record == "SequenceExample" else set()
    features = []
    for name, kind in kinds.items():
        if kind is None:
            return None
        size = 1 if name in series else depths[name] * pixels
        features.append(Feature.stored(name, kind, size))
    if not series:
        return RecordLayout(tuple(features))
    return RecordLayout(
        tuple(feature for feature in features if feature.name not in series),
        tuple(feature for feature in features if feature.name in series),
    )


def infer_content(
    order: RecordLayout,
    patch: Size,
    *,
    names: Sequence[str] | None = None,
    steps: Mapping[str, int] | None = None,
    kernel: Size | None = None,
    depths: Mapping[str, int] | None = None,
    pixels: bool | None = None,
) -> Content:
    """What records hold by the lengths of their lists; every feature is a band.

    Our choice, where several answers fit: the shortest list is that of a scalar band with a margin; if
    no margin fits it is an array band without one.

    Parameters
    ----------
    order : RecordLayout
        The features of the first record.
    patch : Size
        Pixels of a patch without its margin.
    names : sequence of str, optional
        The features that are wanted: looked at alone where all of them do not go together.
    steps : mapping from feature to int, optional
        Steps of the series in the first record.
    kernel : Size, optional
        What the user says.
    depths : mapping from band to int, optional
        What the user says, for some bands or all.
    pixels : bool, optional
        Whether there is an Example for each pixel. Default: if a list is shorter than a patch.

    Raises
    ------
    OptionError
        If the depth of a band that is not there is given, or one below 1; or several margins fit.
    RecordError
        If no margin and no depths fit.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("slope", "f4", 36), Feature.of("ndvi", "f4", 72)))
    >>> content = infer_content(layout, Size(x=4, y=4))
    >>> content.margin, [(band.name, band.dims, band.shape) for band in content.bands]
    (Size(x=1, y=1), [('slope', (), ()), ('ndvi', ('depth',), (2,))])
    """
    if names is not None:
        try:  # all features tell more than some of them, and the same whatever is wanted
            return infer_content(order, patch, steps=steps, kernel=kernel, depths=depths, pixels=pixels)
        except (OptionError, RecordError):
            order = choose_features(order, names)
    given = check_depths(depths, [feature.name for feature in order.features])
    features = order.features
    if order.sequences is not None:
        found = {feature.name: feature.size for feature in order.context}
        for feature in order.sequences:
            found[feature.name] = _steps(feature, (steps or {}).get(feature.name, 0), given) * feature.size
        margin, per_patch = Size(x=0, y=0), patch.pixels
    else:
        short = kernel is None and any(feature.size < patch.pixels for feature in features)
        if short if pixels is None else pixels:
            margin, per_patch = Size(x=0, y=0), patch.pixels
            found = {feature.name: feature.size for feature in features}
        else:
            margin, per_patch = _margin(features, patch, kernel, given), 1
            stored = PatchGrid(patch, patch, margin).stored.pixels
            found = {feature.name: feature.size // stored for feature in features}
            for feature in features:
                if feature.size % stored:
                    raise RecordError(
                        f"The bands {features[0].name!r} and {feature.name!r} have {features[0].size} and "
                        f"{feature.size} values per record, which are not whole numbers of patches: choose "
                        "some with bands=[...], or say how deep they are with tensor_depths={band: depth}."
                    )
    for name, depth in given.items():
        if found[name] != depth:
            raise RecordError(
                f"Band {name!r} has {found[name]} values per pixel, not {depth} as tensor_depths says. Leave "
                "it out to have it inferred."
            )
    series = {feature.name: feature.size for feature in order.sequences or ()}
    bands = []
    for feature in features:
        name, depth = feature.name, found[feature.name]
        shape: tuple[int, ...] = ()
        if name in series:
            shape = (depth // series[name], series[name])[: 1 + (series[name] > 1)]
        elif depth > 1 or name in given:
            shape = (depth,)
        bands.append(BandDimensions(name, name, 0, ("depth", "value")[: len(shape)], shape))
    return Content(distinct_dims(bands), margin, per_patch)


def read_order(data: bytes) -> tuple[RecordLayout, dict[str, int]]:
    """All features of a record, and the steps of its series.

    Raises
    ------
    RecordError
        If it is no valid Example or SequenceExample.
    """
    _, series = decode_sequence_example(data)
    if not series:
        return read_layout(data), {}
    return read_sequence_layout([data]), {name: len(steps) for name, steps in series.items()}


def fitting_fill(value: float, kind: Kind) -> float:
    """What stands for steps that are not there, in a type that may not hold it: clamped, as in an export."""
    if kind == "float":
        return value
    low, high = _LIMITS[kind]
    return min(max(int(value), low), high)


def choose_features(order: RecordLayout, names: Sequence[str]) -> RecordLayout:
    """Those features of a record that are named, in that order."""
    places = [{feature.name: feature for feature in part} for part in (order.context, order.sequences or ())]
    context, sequences = (tuple(place[name] for name in names if name in place) for place in places)
    return RecordLayout(context, None if order.sequences is None else sequences)


def choose_bands(known: Sequence[str], wanted: str | Sequence[str] | None) -> list[str]:
    """The names of the bands that are wanted, all by default.

    Raises
    ------
    OptionError
        If one is not there or is named twice, or none is named.
    """
    if wanted is None:
        return list(known)
    if not isinstance(wanted, Iterable):
        raise OptionError(f"bands must be names of bands, such as ['B4', 'B3']; got {wanted!r}.")
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    listed = ", ".join(map(repr, known))
    for name in names:
        if name not in known:
            raise OptionError(f"There is no band {name!r}; there are {listed}.")
        if names.count(name) > 1:
            raise OptionError(f"The band {name!r} is there twice in bands.")
    if not names:
        raise OptionError(f"bands is empty; there are {listed}.")
    return names


def _depths(bands: Sequence[BandDimensions]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for band in bands:
        depths[band.feature] = max(depths.get(band.feature, 0), band.first + band.depth)
    return depths


def _series(bands: Sequence[BandDimensions]) -> set[str]:
    """The features that are series of steps in SequenceExamples; others are single values."""
    depths = _depths(bands)
    return {band.feature for band in bands if band.dims or depths[band.feature] > 1}


def check_depths(given: Any, names: Collection[str]) -> dict[str, int]:
    """The depths of bands that a user gives.

    Raises
    ------
    OptionError
        If they are not a mapping, of a band that is not read, or not whole numbers above 0.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"tensor_depths must be a mapping such as {{'ndvi': 3}}; got {given!r}.")
    for name, depth in given.items():
        if name not in names:
            raise OptionError(
                f"tensor_depths has {name!r}, which is not a band that is read; those are {list(names)}."
            )
        number = not isinstance(depth, bool | np.bool_) and isinstance(depth, int | float | np.number)
        if not number or not 1 <= depth < 2**62 or depth != int(depth):
            raise OptionError(f"The tensor depth of {name!r} must be a whole number above 0; got {depth!r}.")
    return {name: int(depth) for name, depth in given.items()}


def with_depths(manifest: ImageManifest, given: Mapping[str, int]) -> ImageManifest:
    """A manifest in which the depths that a user gives replace those of their bands.

    A band whose depth is that of the manifest keeps its dimensions; so do all other bands.

    Raises
    ------
    OptionError
        If a band of a collapsed export gets another depth: the bands behind it would be elsewhere.
    """
    features = [band.feature for band in manifest.bands]
    bands = []
    for band in manifest.bands:
        depth = given.get(band.name)
        if depth is None or (depth == band.depth and band.dims):
            bands.append(band)
            continue
        if features.count(band.feature) > 1:
            if depth != band.depth:
                raise OptionError(
                    f"Band {band.name!r} has {band.depth} values per pixel, not {depth} (tensor_depths), "
                    "and is one of several bands that were collapsed. Leave it out."
                )
            bands.append(band)
            continue
        bands.append(replace(band, dims=("depth",), shape=(depth,)))
    bands = list(distinct_dims(bands))
    dims = {dim: length for band in bands for dim, length in zip(band.dims, band.shape, strict=True)}
    coords = {dim: values for dim, values in manifest.coords.items() if dims.get(dim) == len(values)}
    return replace(manifest, bands=tuple(bands), coords=coords)


def _steps(feature: Feature, found: int, given: Mapping[str, int]) -> int:
    """Steps of a series: as the user says, or of the first record."""
    values = given.get(feature.name, found * feature.size)
    if values < found * feature.size or values % feature.size:
        raise RecordError(
            f"Band {feature.name!r} has {found * feature.size} values in the first record, more than the "
            f"{values} of tensor_depths."
        )
    if not values:
        raise RecordError(
            f"Band {feature.name!r} has no step in the first record: say how many others have at most, with "
            f"tensor_depths={{{feature.name!r}: steps}}."
        )
    return values // feature.size


def _margin(features: Sequence[Feature], patch: Size, kernel: Size | None, given: Mapping[str, int]) -> Size:
    """The margin of patches whose bands may be deep."""
    told = next((feature for feature in features if feature.name in given), None)
    if told is not None:
        wrong = RecordError(
            f"Band {told.name!r} has {told.size} values per record, which are not {given[told.name]} steps "
            f"of patches of {patch.x} x {patch.y} pixels, as tensor_depths says, with any margin."
        )
        values, rest = divmod(told.size, given[told.name])
        if rest:
            raise wrong
        try:
            return infer_margin(patch, values, kernel=kernel, band=told.name)
        except RecordError:
            raise wrong from None
    shortest = min(features, key=lambda feature: feature.size)
    values = shortest.size
    if kernel is not None:
        stored = PatchGrid(patch, patch, PatchGrid.margin_of(kernel)).stored.pixels
        values = stored if values % stored == 0 else values
    else:
        try:
            return infer_margin(patch, values, band=shortest.name)
        except RecordError:
            if values % patch.pixels:
                raise
            values = patch.pixels
    return infer_margin(patch, values, kernel=kernel, band=shortest.name)

"""What the records of an image hold: as its manifest describes it, or inferred from the first record.

A mixer holds neither the kernel nor the depths of bands. The manifest beside an export of xee_tf does; for
other exports both are inferred from the lengths of the lists, as far as possible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.content import (
    PIXEL,
    Content,
    check_depths,
    choose_features,
    feature_depths,
    with_depths,
)
from xee_tf.reading.margins import infer_margin, margin_of_bands
from xee_tf.records import Feature, RecordLayout
from xee_tf.sidecars import BandSpec, ImageManifest, distinct_dims

__all__ = [
    "Inference",
    "described_layout",
    "inferred_bands",
]


@dataclass(frozen=True)
class Inference:
    """From the lists of the first record, and what a user gives, to what all records hold.

    Parameters
    ----------
    layout : RecordLayout
        The features of the first record.
    patch : Size
        Pixels of a patch without its margin.
    steps : mapping from feature to int
        Steps of the series in the first record.
    kernel, depths : optional
        What the user gives, depths of some bands or all.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("slope", "f4", 36), Feature.of("ndvi", "f4", 72)))
    >>> content = Inference(layout, Size(x=4, y=4)).inferred()
    >>> content.margin, [(band.name, band.dims, band.shape) for band in content.bands]
    (Size(x=1, y=1), [('slope', (), ()), ('ndvi', ('depth',), (2,))])
    """

    layout: RecordLayout
    patch: Size
    steps: Mapping[str, int] = field(default_factory=dict)
    kernel: Size | None = None
    depths: Mapping[str, int] | None = None

    @property
    def by_pixel(self) -> bool:
        """Whether each record is a pixel, as far as one shows it: a list is shorter than a patch."""
        if self.layout.sequences is not None:
            return True
        return self.kernel is None and any(each.size < self.patch.pixels for each in self.layout.features)

    # -- Described by a manifest ---------------------------------------------------------------------

    def described(self, manifest: ImageManifest, name: str | None) -> Content | None:
        """What records hold according to a manifest; None if they are not those that it describes.

        `name` is that of the manifest if it must describe the records because they lie beside it.
        """
        content = self._described(manifest)
        if self.depths and content is not None:
            given = check_depths(self.depths, [band.name for band in manifest.bands])
            content = self._described(with_depths(manifest, given))
            if content is None:
                known = {band.name: band.depth for band in manifest.bands if band.name in given}
                raise RecordError(
                    f"tensor_depths={given} does not go with the records, which have the depths {known} of "
                    f"{name or 'the manifest'}. Leave it out."
                )
        if content is None and name is not None and not self.depths:
            names = [feature.name for feature in self.layout.features]
            raise RecordError(
                f"it holds {names}, which does not go with {name}. The shards may be of another export; "
                "if not, remove that file, or give the depths of bands with tensor_depths={band: depth}."
            )
        return content

    def _described(self, manifest: ImageManifest) -> Content | None:
        layout = self.layout
        features = {feature.name: feature for feature in layout.features}
        depths = feature_depths(manifest.bands)
        if depths.keys() != features.keys():  # a feature that the manifest lacks would be left out silently
            return None
        series = {feature.name for feature in layout.sequences or ()}
        for band in manifest.bands:  # the kind of a series without a step is unknown
            silent = band.feature in series and not self.steps.get(band.feature)
            if band.kind and not silent and band.kind != features[band.feature].kind:
                return None
        content = Content(
            layout, manifest.bands, unit="pixel", coords=manifest.coords, fill=manifest.default_value
        )
        if manifest.record == "SequenceExample":
            if series != _series(manifest.bands) or manifest.kernel not in (None, PIXEL):
                return None
            for name, depth in depths.items():
                count = self.steps.get(name, depth) if name in series else depth
                if features[name].size != 1 or count > depth or (count < depth and not manifest.ragged):
                    return None
            return content
        if layout.sequences is not None:
            return None
        (stored, rest), *others = {divmod(features[name].size, depth) for name, depth in depths.items()}
        if rest or others:
            return None
        if self.kernel is None and manifest.kernel is not None:
            margin = PatchGrid.margin_of(manifest.kernel)
            if self.patch.with_margin(margin).pixels != stored:
                return None
        else:
            margin = infer_margin(self.patch, stored, kernel=self.kernel, band=manifest.bands[0].name)
        return replace(content, margin=margin, unit="patch")

    # -- Inferred from the lengths of lists ----------------------------------------------------------

    def inferred(
        self,
        names: Sequence[str] | None = None,
        by_pixel: bool | None = None,
        hint: Size | None = None,
    ) -> Content:
        """What records hold by the lengths of their lists; every feature is a band.

        Our choice, where several answers fit: the shortest list is that of a scalar band with a margin; if
        no margin fits it is an array band without one.

        Parameters
        ----------
        names : sequence of str, optional
            The features that are wanted: looked at alone where all of them do not go together.
        by_pixel : bool, optional
            Whether there is an Example for each pixel. Default: as far as one record shows it.
        hint : Size, optional
            The kernel of the export, which is tried where the user gives none.
        """
        if self.kernel is not None or hint is None:
            return self._inferred(names, by_pixel)
        with suppress(RecordError, OptionError):
            return replace(self, kernel=hint)._inferred(names, by_pixel)
        try:
            return self._inferred(names, by_pixel)
        except (RecordError, OptionError):
            with suppress(
                RecordError, OptionError
            ):  # predictions of the patches alone, without their margins
                return replace(self, kernel=PIXEL)._inferred(names, by_pixel)
            raise

    def _inferred(self, names: Sequence[str] | None, by_pixel: bool | None) -> Content:
        try:  # all features tell more than some of them, and the same whatever is wanted
            return self._of_all(by_pixel)
        except (OptionError, RecordError):
            if names is None:
                raise
        some = replace(self, layout=choose_features(self.layout, names))
        return replace(some._of_all(by_pixel), layout=self.layout)

    def _of_all(self, by_pixel: bool | None) -> Content:
        layout = self.layout
        given = check_depths(self.depths, [feature.name for feature in layout.features])
        values = {feature.name: feature.size for feature in layout.features}
        if layout.sequences is not None:
            for feature in layout.sequences:
                values[feature.name] *= _steps(feature, self.steps.get(feature.name, 0), given)
            content = Content(layout, (), unit="pixel")
        elif self.by_pixel if by_pixel is None else by_pixel:
            content = Content(layout, (), unit="pixel")
        else:
            content = Content(layout, (), margin_of_bands(layout.features, self.patch, self.kernel, given))
            stored = self.patch.with_margin(content.margin).pixels
            values = {name: size // stored for name, size in values.items()}
            first = layout.features[0]
            for feature in layout.features:
                if feature.size % stored:
                    raise RecordError(
                        f"The bands {first.name!r} and {feature.name!r} have {first.size} and {feature.size} "
                        "values per record, which are not whole numbers of patches: choose some with "
                        "bands=[...], or say how deep they are with tensor_depths={band: depth}."
                    )
        for name, depth in given.items():
            if values[name] != depth:
                raise RecordError(
                    f"Band {name!r} has {values[name]} values per pixel, not {depth} as tensor_depths says. "
                    "Leave it out to have it inferred."
                )
        return replace(content, bands=inferred_bands(layout, values, given))


def described_layout(manifest: ImageManifest) -> RecordLayout | None:
    """The features of the records of an export without any; None where the manifest does not hold them."""
    depths, kinds = feature_depths(manifest.bands), {band.feature: band.kind for band in manifest.bands}
    if manifest.grid is None:
        return None
    sequential = manifest.record == "SequenceExample"
    pixels = 1 if sequential else manifest.grid.stored.pixels
    series = _series(manifest.bands) if sequential else set()
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


def _series(bands: Sequence[BandSpec]) -> set[str]:
    """The features that are series of steps in SequenceExamples; others are single values."""
    depths = feature_depths(bands)
    return {band.feature for band in bands if band.dims or depths[band.feature] > 1}


def inferred_bands(
    layout: RecordLayout, values: Mapping[str, int], given: Collection[str]
) -> tuple[BandSpec, ...]:
    """A band for each feature with so many values per pixel: a scalar one for one value, if none is given."""
    series = {feature.name: feature.size for feature in layout.sequences or ()}
    bands = []
    for name, depth in values.items():
        shape: tuple[int, ...] = ()
        if name in series:
            shape = (depth // series[name], series[name])[: 1 + (series[name] > 1)]
        elif depth > 1 or name in given:
            shape = (depth,)
        bands.append(BandSpec(name, ("depth", "value")[: len(shape)], shape))
    return distinct_dims(bands)


def _steps(feature: Feature, found: int, given: Mapping[str, int]) -> int:
    """Steps of a series: those that the user gives, or those of the first record."""
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

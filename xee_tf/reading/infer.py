"""Determine the content of the records of an image from its manifest, or infer it from the first record.

A mixer contains neither the kernel nor the depths of bands. The manifest of an export from xee_tf does; for
other exports both are inferred from the lengths of lists, as far as possible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from xee_tf.display import counted, quoted
from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.content import PIXEL, Content, choose_features, feature_depths
from xee_tf.reading.margins import infer_margin, margin_of_bands
from xee_tf.reading.selection import check_depths, override_depths
from xee_tf.records import Feature, RecordLayout
from xee_tf.sidecars import BandSpec, ImageManifest, distinct_dims

__all__ = ["Inference", "infer_bands", "layout_of_manifest"]


@dataclass(frozen=True)
class Inference:
    """Determines the content of all records from the lists of the first record and the options.

    Parameters
    ----------
    layout : RecordLayout
        The features of the first record.
    patch : Size
        Size of a patch in pixels, without its margin.
    steps : mapping from feature to int
        Number of steps of each series in the first record.
    kernel : Size, optional
        The option `kernel_size`.
    depths : mapping from band to int, optional
        The option `tensor_depths`, for some or all bands.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("slope", "f4", 36), Feature.of("ndvi", "f4", 72)))
    >>> content = Inference(layout, Size(x=4, y=4)).from_lengths()
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
        """Whether each record seems to be a pixel: it has a list that is shorter than a patch."""
        if self.layout.sequences is not None:
            return True
        return self.kernel is None and any(each.size < self.patch.pixels for each in self.layout.features)

    # -- From a manifest -----------------------------------------------------------------------------

    def from_manifest(self, manifest: ImageManifest, name: str | None) -> Content | None:
        """Return the content of the records that a manifest describes, or None if it does not match them.

        `name` is the file name of the manifest if it must match because it is next to the records.
        """
        content = self._match(manifest)
        if self.depths and content is not None:
            depths = check_depths(self.depths, [band.name for band in manifest.bands])
            content = self._match(override_depths(manifest, depths))
            if content is None:
                known = {band.name: band.depth for band in manifest.bands if band.name in depths}
                raise RecordError(
                    f"tensor_depths={depths} does not match the records, which have the depths {known} "
                    f"({name or 'the manifest'}). Omit tensor_depths."
                )
        if content is None and name is not None and not self.depths:
            names = [feature.name for feature in self.layout.features]
            raise RecordError(
                f"the features {quoted(names)} do not match {name}. If the shards are from another export, "
                "restore the right ones; else remove that file, or pass the depths of bands as "
                "tensor_depths={band: depth}."
            )
        return content

    def _match(self, manifest: ImageManifest) -> Content | None:
        layout = self.layout
        features = {feature.name: feature for feature in layout.features}
        depths = feature_depths(manifest.bands)
        if depths.keys() != features.keys():  # additional features would be omitted without notice
            return None
        series = {feature.name for feature in layout.sequences or ()}
        for band in manifest.bands:  # the kind of a series without steps is unknown
            is_empty = band.feature in series and not self.steps.get(band.feature)
            if band.kind and not is_empty and band.kind != features[band.feature].kind:
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

    # -- From the lengths of lists -------------------------------------------------------------------

    def from_lengths(
        self,
        names: Sequence[str] | None = None,
        by_pixel: bool | None = None,
        hint: Size | None = None,
    ) -> Content:
        """Infer the content of the records from the lengths of their lists; every feature is a band.

        If the lengths are ambiguous, the shortest list is assumed to be a scalar band with a margin. If no
        margin fits, it is an array band without a margin.

        Parameters
        ----------
        names : sequence of str, optional
            Names of the chosen features, which are used alone if all features do not fit together.
        by_pixel : bool, optional
            Whether there is one Example per pixel. Default: inferred from the first record.
        hint : Size, optional
            Kernel to try first if the option `kernel_size` is not given.
        """
        if self.kernel is not None or hint is None:
            return self._infer(names, by_pixel)
        with suppress(RecordError, OptionError):
            return replace(self, kernel=hint)._infer(names, by_pixel)
        try:
            return self._infer(names, by_pixel)
        except (RecordError, OptionError):
            with suppress(RecordError, OptionError):  # predictions without margins
                return replace(self, kernel=PIXEL)._infer(names, by_pixel)
            raise

    def _infer(self, names: Sequence[str] | None, by_pixel: bool | None) -> Content:
        try:  # all features together, so that the result does not depend on the chosen ones
            return self._infer_all(by_pixel)
        except (OptionError, RecordError):
            if names is None:
                raise
        some = replace(self, layout=choose_features(self.layout, names))
        return replace(some._infer_all(by_pixel), layout=self.layout)

    def _infer_all(self, by_pixel: bool | None) -> Content:
        layout = self.layout
        depths = check_depths(self.depths, [feature.name for feature in layout.features])
        values = {feature.name: feature.size for feature in layout.features}
        if layout.sequences is not None:
            for feature in layout.sequences:
                values[feature.name] *= _count_steps(feature, self.steps.get(feature.name, 0), depths)
            content = Content(layout, (), unit="pixel")
        elif self.by_pixel if by_pixel is None else by_pixel:
            content = Content(layout, (), unit="pixel")
        else:
            content = Content(layout, (), margin_of_bands(layout.features, self.patch, self.kernel, depths))
            stored = self.patch.with_margin(content.margin).pixels
            values = {name: size // stored for name, size in values.items()}
            first = layout.features[0]
            for feature in layout.features:
                if feature.size % stored:
                    raise RecordError(
                        f"Bands {first.name!r} and {feature.name!r} have {first.size:,} and {feature.size:,} "
                        f"values per record, which are not multiples of {stored:,}, the number of pixels of "
                        "a stored patch. Choose other bands with bands=[...], or pass the depths as "
                        "tensor_depths={band: depth}."
                    )
        for name, depth in depths.items():
            if values[name] != depth:
                raise RecordError(
                    f"Band {name!r} has {counted(values[name], 'value')} per pixel, but tensor_depths "
                    f"specifies {depth}. Omit it to infer the depth."
                )
        return replace(content, bands=infer_bands(layout, values, depths))


def layout_of_manifest(manifest: ImageManifest) -> RecordLayout | None:
    """Return the features of the records that a manifest describes; None if it is from an old version.

    This is needed for exports without any records.
    """
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
    """Return the features that SequenceExamples store as series of steps; others are single values."""
    depths = feature_depths(bands)
    return {band.feature for band in bands if band.dims or depths[band.feature] > 1}


def infer_bands(
    layout: RecordLayout, values: Mapping[str, int], given: Collection[str]
) -> tuple[BandSpec, ...]:
    """Return a band for each feature, from its number of values per pixel.

    A feature with a single value per pixel is a scalar band, unless the user specified its depth (`given`).
    """
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


def _count_steps(feature: Feature, found: int, depths: Mapping[str, int]) -> int:
    """Return the number of steps of a series from `tensor_depths`, or else from the first record."""
    values = depths.get(feature.name, found * feature.size)
    if values < found * feature.size or values % feature.size:
        raise RecordError(
            f"Band {feature.name!r} has {counted(found * feature.size, 'value')} in the first record, but "
            f"tensor_depths specifies {values}."
        )
    if not values:
        raise RecordError(
            f"Band {feature.name!r} has no steps in the first record: pass the maximum number of steps as "
            f"tensor_depths={{{feature.name!r}: steps}}."
        )
    return values // feature.size

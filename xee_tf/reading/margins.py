"""Infer the margins of stored patches from the lengths of the lists that contain them.

Without a manifest this is the only source: the margin is the one that fits the number of values of a band.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from xee_tf.display import counted
from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.content import NO_MARGIN
from xee_tf.records import Feature, RecordLayout

__all__ = ["infer_margin", "is_patch", "margin_beside_labels", "margin_of_bands"]


def infer_margin(patch: Size, values: int, *, kernel: Size | None = None, band: str = "a band") -> Size:
    """Return the margin of a patch in pixels on every side, from the number of values of a scalar band.

    If the user specified a kernel, it is checked against the number of values.

    Examples
    --------
    >>> infer_margin(Size(x=256, y=256), 316 * 316)
    Size(x=30, y=30)
    >>> infer_margin(Size(x=256, y=128), 256 * 128)
    Size(x=0, y=0)
    """
    found = f"Band {band!r} has {counted(values, 'value')} per record"
    if kernel is not None:
        margin = PatchGrid.margin_of(kernel)
        stored = patch.with_margin(margin).pixels
        if values != stored:
            raise RecordError(
                f"{found}, but patches of {patch.x} x {patch.y} pixels with kernel_size={kernel.xy} have "
                f"{stored:,}. Omit kernel_size to have it inferred."
            )
        return margin
    fitting = [
        Size(x=(values // height - patch.x) // 2, y=(height - patch.y) // 2)
        for height in range(patch.y, values // patch.x + 1, 2)
        if values % height == 0 and (values // height - patch.x) % 2 == 0
    ]
    square = [margin for margin in fitting if margin.x == margin.y]
    if square or len(fitting) == 1:
        return (square or fitting)[0]
    if fitting:
        kernels = ", ".join(str((2 * margin.x, 2 * margin.y)) for margin in fitting)
        raise OptionError(
            f"{found}, which matches several kernels (width, height) for patches of {patch.x} x {patch.y} "
            f"pixels: {kernels}. Pass the correct one as kernel_size=."
        )
    raise RecordError(
        f"{found}, which matches no kernel for patches of {patch.x} x {patch.y} pixels: these records are "
        "not from the export of this mixer, or the band is not scalar."
    )


def _length(feature: Feature) -> str:
    return f"Band {feature.name!r} has {counted(feature.size, 'value')} per record"


def _feature_margin(feature: Feature, patch: Size, depth: int = 1) -> Size:
    """Return the margin of patches with `depth` values per pixel in a feature."""
    values = feature.size // depth
    try:
        return infer_margin(patch, values, band=feature.name)
    except RecordError:
        if values % patch.pixels:
            raise
        return NO_MARGIN  # an array band


def margin_of_bands(
    features: Sequence[Feature], patch: Size, kernel: Size | None, depths: Mapping[str, int]
) -> Size:
    """Return the margin of the records of a mixer, in which every list contains patches.

    It is inferred from the first band with a specified depth, or else from the shortest band.
    """
    deep = next((feature for feature in features if feature.name in depths), None)
    if deep is not None:
        values, rest = divmod(deep.size, depths[deep.name])
        with suppress(RecordError):
            if not rest:
                return infer_margin(patch, values, kernel=kernel, band=deep.name)
        raise RecordError(
            f"{_length(deep)}, which matches no margin for patches of {patch.x} x {patch.y} pixels "
            f"and {counted(depths[deep.name], 'step')} (tensor_depths)."
        )
    shortest = min(features, key=lambda feature: feature.size)
    if kernel is None:
        return _feature_margin(shortest, patch)
    stored = patch.with_margin(PatchGrid.margin_of(kernel)).pixels
    values = shortest.size if shortest.size % stored else stored
    return infer_margin(patch, values, kernel=kernel, band=shortest.name)


def is_patch(feature: Feature, stored: Size, depths: Mapping[str, int]) -> bool:
    """Return whether a feature contains whole patches; otherwise its values belong to the whole record.

    If the specified depth equals the number of values, the feature does not contain patches.
    """
    depth = depths.get(feature.name)
    if depth is not None:
        return feature.size == depth * stored.pixels
    return feature.size >= stored.pixels and feature.size % stored.pixels == 0


def margin_beside_labels(
    layout: RecordLayout, names: Collection[str], patch: Size, kernel: Size | None, depths: Mapping[str, int]
) -> Size:
    """Return the margin of records without a mixer, which may contain labels and text as well as patches.

    A kernel that the user specified is used as it is. Otherwise the margin is inferred from the shortest
    feature for which a margin fits; features shorter than a patch are ignored.
    """
    chosen = [feature for feature in layout.features if feature.name in names]
    others = [feature for feature in layout.features if feature not in chosen and feature.kind != "bytes"]
    if kernel is None:
        margin = _margin_of_all([*chosen, *others], chosen, patch, depths)
    else:
        margin = PatchGrid.margin_of(kernel)
    stored = patch.with_margin(margin)
    if not any(is_patch(feature, stored, depths) for feature in chosen):
        largest = max(chosen, key=lambda feature: feature.size)
        margins = "" if kernel is None else f" with kernel_size={kernel.xy}"
        raise RecordError(
            f"{_length(largest)}, but patches of {patch.x} x {patch.y} pixels{margins} have "
            f"{stored.pixels:,} or a multiple of it. Correct patch_dimensions and kernel_size, or omit them "
            "if each record is a pixel or a table row."
        )
    for feature in chosen:
        depth = depths.get(feature.name)
        if is_patch(feature, stored, depths) or depth == feature.size or feature.kind == "bytes":
            continue
        if depth is not None:
            raise RecordError(
                f"{_length(feature)}, but patches of {stored.x} x {stored.y} pixels with "
                f"{counted(depth, 'value')} per pixel (tensor_depths) have {depth * stored.pixels:,}."
            )
        if feature.size % patch.pixels == 0:
            raise RecordError(
                f"{_length(feature)}: patches of {patch.x} x {patch.y} pixels without a margin, "
                f"while other bands are stored as {stored.x} x {stored.y} pixels. Export all bands with "
                "one kernel_size. If the values belong to the whole record, pass "
                f"tensor_depths={{{feature.name!r}: {feature.size}}}."
            )
    return margin


def _margin_of_all(
    features: Sequence[Feature], chosen: Sequence[Feature], patch: Size, depths: Mapping[str, int]
) -> Size:
    """Return the margin that fits all features, or the chosen features if the others do not fit."""
    margin = NO_MARGIN
    for some in (features, chosen):
        try:
            margin = _margin_of_shortest(some, patch, depths)
        except OptionError:
            if some is chosen:
                raise
            continue
        stored = patch.with_margin(margin)
        if all(is_patch(each, stored, depths) or each.size < patch.pixels for each in chosen):
            break
    return margin


def _margin_of_shortest(features: Sequence[Feature], patch: Size, depths: Mapping[str, int]) -> Size:
    """Return the margin of the shortest feature with patches; no margin if there is no such feature."""
    # Features with a specified depth come first, byte strings last, because their length is arbitrary.
    for feature in sorted(
        features, key=lambda each: (each.name not in depths, each.kind == "bytes", each.size)
    ):
        depth = depths.get(feature.name, 1)
        values, rest = divmod(feature.size, depth)
        if rest or values < patch.pixels or (depth > 1 and depth == feature.size):
            continue
        with suppress(RecordError):
            return _feature_margin(feature, patch, depth)
    return NO_MARGIN

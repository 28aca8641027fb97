"""The margins of stored patches, by the lengths of the lists that hold them.

Without a manifest nothing else tells them. A margin is the one that fits the number of values of a band.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.reading.content import NO_MARGIN
from xee_tf.records import Feature, RecordLayout

__all__ = ["infer_margin", "is_patch", "margin_beside_labels", "margin_of_bands"]


def _feature_margin(feature: Feature, patch: Size, depth: int = 1) -> Size:
    """The margin of patches whose pixels have `depth` values in a feature."""
    values = feature.size // depth
    try:
        return infer_margin(patch, values, band=feature.name)
    except RecordError:
        if values % patch.pixels:
            raise
        return NO_MARGIN  # an array band


def infer_margin(patch: Size, values: int, *, kernel: Size | None = None, band: str = "a band") -> Size:
    """Pixels on every side of a patch, from the values that its records hold of a band.

    A kernel that the user gives is checked against the values.

    Examples
    --------
    >>> infer_margin(Size(x=256, y=256), 316 * 316)
    Size(x=30, y=30)
    >>> infer_margin(Size(x=256, y=128), 256 * 128)
    Size(x=0, y=0)
    """
    about = f"Band {band!r} has {values} values per record, "
    if kernel is not None:
        margin = PatchGrid.margin_of(kernel)
        stored = patch.with_margin(margin).pixels
        if values != stored:
            raise RecordError(
                f"{about}but patches of {patch.x} x {patch.y} pixels with kernel_size={kernel.xy} have "
                f"{stored}. Leave kernel_size out to have it inferred."
            )
        return margin
    fitting = [
        Size(x=(values // height - patch.x) // 2, y=(height - patch.y) // 2)
        for height in range(patch.y, values // patch.x + 1, 2)
        if values % height == 0 and (values // height - patch.x) % 2 == 0
    ]
    even = [margin for margin in fitting if margin.x == margin.y]
    if even or len(fitting) == 1:
        return (even or fitting)[0]
    if fitting:
        known = ", ".join(str((2 * margin.x, 2 * margin.y)) for margin in fitting)
        raise OptionError(
            f"{about}which patches of {patch.x} x {patch.y} pixels have with each of these kernels (width, "
            f"height): {known}. Say which with kernel_size=."
        )
    raise RecordError(
        f"{about}which patches of {patch.x} x {patch.y} pixels have with no kernel: these records do not "
        "belong to this mixer, or hold no scalar band of that name."
    )


def margin_of_bands(
    features: Sequence[Feature], patch: Size, kernel: Size | None, given: Mapping[str, int]
) -> Size:
    """The margin of records that a mixer describes: every list holds patches.

    The first band whose depth is given decides, or else the shortest band. It is an error if no margin fits.
    """
    deep = next((feature for feature in features if feature.name in given), None)
    if deep is not None:
        values, rest = divmod(deep.size, given[deep.name])
        with suppress(RecordError):
            if not rest:
                return infer_margin(patch, values, kernel=kernel, band=deep.name)
        raise RecordError(
            f"Band {deep.name!r} has {deep.size} values per record, which are not {given[deep.name]} steps "
            f"of patches of {patch.x} x {patch.y} pixels, as tensor_depths says, with any margin."
        )
    shortest = min(features, key=lambda feature: feature.size)
    if kernel is None:
        return _feature_margin(shortest, patch)
    stored = patch.with_margin(PatchGrid.margin_of(kernel)).pixels
    values = shortest.size if shortest.size % stored else stored
    return infer_margin(patch, values, kernel=kernel, band=shortest.name)


def is_patch(feature: Feature, stored: Size, depths: Mapping[str, int]) -> bool:
    """Whether a feature holds whole patches; otherwise its values are those of the record, such as a label.

    A depth that is the number of values of the feature means that it does not hold patches.
    """
    depth = depths.get(feature.name)
    if depth is not None:
        return feature.size == depth * stored.pixels
    return feature.size >= stored.pixels and feature.size % stored.pixels == 0


def margin_beside_labels(
    layout: RecordLayout, names: Collection[str], patch: Size, kernel: Size | None, depths: Mapping[str, int]
) -> Size:
    """The margin of records without a mixer: labels and texts may stand beside the patches.

    A kernel that the user gives is taken as it is. Otherwise features that are shorter than a patch are left
    aside, and the shortest other one for which a margin fits decides.
    """
    wanted = [feature for feature in layout.features if feature.name in names]
    others = [feature for feature in layout.features if feature not in wanted and feature.kind != "bytes"]
    if kernel is None:
        margin = _margin_of_all([*wanted, *others], wanted, patch, depths)
    else:
        margin = PatchGrid.margin_of(kernel)
    stored = patch.with_margin(margin)
    if not any(is_patch(feature, stored, depths) for feature in wanted):
        largest = max(wanted, key=lambda feature: feature.size)
        margins = "" if kernel is None else f" with kernel_size={kernel.xy}"
        raise RecordError(
            f"Band {largest.name!r} has {largest.size} values per record, but patches of {patch.x} x "
            f"{patch.y} pixels{margins} have {stored.pixels}, or a multiple of it. Correct patch_dimensions "
            "and kernel_size, or leave them out if each record is a pixel or the row of a table."
        )
    for feature in wanted:
        depth = depths.get(feature.name)
        if is_patch(feature, stored, depths) or depth == feature.size or feature.kind == "bytes":
            continue
        if depth is not None:
            raise RecordError(
                f"Band {feature.name!r} has {feature.size} values per record, which are not {depth} values "
                f"per pixel in patches of {stored.x} x {stored.y} pixels, as tensor_depths gives them."
            )
        if feature.size % patch.pixels == 0:
            raise RecordError(
                f"Band {feature.name!r} has {feature.size} values per record, patches of {patch.x} x "
                f"{patch.y} pixels without the margin of others, which are stored as {stored.x} x {stored.y} "
                "pixels. Export all with one kernel_size. If they are values of the whole record, use "
                f"tensor_depths={{{feature.name!r}: {feature.size}}}."
            )
    return margin


def _margin_of_all(
    everything: Sequence[Feature], wanted: Sequence[Feature], patch: Size, depths: Mapping[str, int]
) -> Size:
    """The margin that all lists have, or the wanted ones where others do not go with them."""
    margin = NO_MARGIN
    for features in (everything, wanted):
        try:
            margin = _shortest(features, patch, depths)
        except OptionError:
            if features is wanted:
                raise
            continue
        stored = patch.with_margin(margin)
        if all(is_patch(each, stored, depths) or each.size < patch.pixels for each in wanted):
            break
    return margin


def _shortest(features: Sequence[Feature], patch: Size, depths: Mapping[str, int]) -> Size:
    """The margin of the shortest feature that holds patches; none if there is no such feature."""
    # Where the user gives a depth, it decides. Texts come last: they are as long as they happen to be.
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

"""The margin around patches, which no file holds: inferred from how many values per record has."""

from __future__ import annotations

from xee_tf.errors import OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size

__all__ = ["infer_margin"]


def infer_margin(patch: Size, values: int, *, kernel: Size | None = None, band: str = "a band") -> Size:
    """Pixels on every side of a patch, from the values that its records hold of a band.

    Parameters
    ----------
    patch : Size
        Pixels of a patch without its margin, from the mixer.
    values : int
        Values of a band in a record.
    kernel : Size, optional
        What the user says; it is checked against the values.
    band : str, optional
        Name of the band, for errors.

    Raises
    ------
    RecordError
        If no margin fits, or not that of `kernel`.
    OptionError
        If several fit and none of them is the same on all sides.

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
        stored = (patch.x + 2 * margin.x) * (patch.y + 2 * margin.y)
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

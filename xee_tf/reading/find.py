"""Finding the shards that belong to a mixer, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from xee_tf.errors import MissingShardError, OptionError, RecordError
from xee_tf.storage import Location

__all__ = ["check_order", "find_records"]

_MIXER = "mixer.json"
_SHARD = r"(\d{5}|[1-9]\d{5,})\.tfrecord(\.gz)?"


def find_records(mixer: Location) -> list[Location]:
    """The shards beside a mixer, in the order of their numbers.

    Both of Earth Engine's ways to name files are known: ``<prefix>-mixer.json`` goes with
    ``<prefix>-00000.tfrecord[.gz]`` (Drive), ``<prefix>mixer.json`` with ``<prefix>00000.tfrecord[.gz]``
    (Cloud Storage).

    Parameters
    ----------
    mixer : Location
        Need not exist; only its name counts.

    Raises
    ------
    OptionError
        If its name does not end with ``mixer.json``.
    MissingShardError
        If there are no shards, or numbers are missing between them.
    RecordError
        If a shard is there twice, compressed and not.

    Examples
    --------
    >>> folder = Location.of("memory://find-records")
    >>> for name in ("scene-00000.tfrecord", "scene-00001.tfrecord", "scene-b-00000.tfrecord"):
    ...     folder.child(name).write_bytes(b"")
    >>> [shard.name for shard in find_records(folder.child("scene-mixer.json"))]
    ['scene-00000.tfrecord', 'scene-00001.tfrecord']
    """
    if not mixer.name.endswith(_MIXER):
        raise OptionError(
            f"The shards of {mixer} cannot be found by its name, which does not end with {_MIXER!r}: "
            "give them as records=[...], in order."
        )
    prefix = Location(mixer.url[: -len(_MIXER)], mixer.storage_options)
    found: dict[int, Location] = {}
    for file in prefix.siblings():
        match = re.fullmatch(re.escape(prefix.name) + _SHARD, file.name)
        if not match:
            continue
        number = int(match[1])
        if number in found:
            raise RecordError(
                f"Shard {number} is there twice, as {found[number].name} and {file.name}: "
                "remove one of them, or give the shards as records=[...]."
            )
        found[number] = file
    if not found:
        raise MissingShardError(
            f"No shards are beside {mixer}: expected {prefix.name}00000.tfrecord or "
            f"{prefix.name}00000.tfrecord.gz and so on. Where they have other names, give them as "
            "records=[...], in order."
        )
    missing = sorted(set(range(max(found))) - set(found))
    if missing:
        raise MissingShardError(
            f"{_numbers(missing)} of {mixer} missing: {prefix.name}{max(found):05d} is there. Every later "
            "patch would be out of place; fetch the missing files again."
        )
    return [found[number] for number in sorted(found)]


def check_order(records: Sequence[Location]) -> None:
    """Refuse shards of one export that are given out of order, or with gaps, as far as names tell.

    Raises
    ------
    RecordError
        If the numbers of names that differ in nothing else do not ascend.
    MissingShardError
        If they ascend with gaps.

    Examples
    --------
    >>> check_order([Location.of("a/s-00001.tfrecord"), Location.of("a/s-00000.tfrecord")])
    Traceback (most recent call last):
    ...
    xee_tf.errors.RecordError: The shards are out of order: s-00001.tfrecord comes before s-00000.tfrecord. \
Give them in the order of their numbers.
    """
    matches = [re.fullmatch(rf"(.*?){_SHARD}", record.name) for record in records]
    for (first, before), (second, after) in pairwise(zip(records, matches, strict=True)):
        if not before or not after or before[1] != after[1]:
            continue
        step = int(after[2]) - int(before[2])
        if step < 1:
            raise RecordError(
                f"The shards are out of order: {first.name} comes before {second.name}. "
                "Give them in the order of their numbers."
            )
        if step > 1:
            missing = list(range(int(before[2]) + 1, int(after[2])))
            raise MissingShardError(
                f"{_numbers(missing)} missing between {first.name} and {second.name}. Every later patch "
                "would be out of place."
            )


def _numbers(missing: Sequence[int]) -> str:
    shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    return f"Shard {shown} is" if len(missing) == 1 else f"Shards {shown} ({len(missing)} in all) are"

"""The tensors of an element: inputs, targets and weights, and how each is read from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.errors import OptionError
from xee_tf.reading import Margins, OpenedExport
from xee_tf.training.checks import require_square
from xee_tf.training.groups import Groups, group_names, pack
from xee_tf.training.masks import masked_values, unambiguous_values
from xee_tf.training.normalizing import offsets_and_scales, scales_of_exports
from xee_tf.training.options import DatasetOptions
from xee_tf.training.parsing import Component
from xee_tf.training.transforms import (
    all_bands,
    class_weights,
    one_hot,
    product,
    scaled,
    without_nan,
)
from xee_tf.training.weighting import Weighting, balanced_weights, class_counts

__all__ = ["Elements"]


@dataclass(frozen=True)
class Elements:
    """The components of all tensors of an element, in order.

    Parameters
    ----------
    inputs, targets : mapping
        The bands of each tensor.
    components : tuple of Component
        The components of the inputs, of the targets, and of the factors of weights.
    factors : tuple of tuple of int
        The components whose product is the weight of each target; empty without weights.
    """

    inputs: Groups
    targets: Groups
    components: tuple[Component, ...]
    factors: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(
        cls, exports: Sequence[OpenedExport], options: DatasetOptions, margins: Margins, kept: Margins
    ) -> Elements:
        """Plan the elements; `margins` are those of the inputs, `kept` those of the targets and weights."""
        export = exports[0]
        components = [
            Component.of(export, names, margins, "float32", **_normalized(exports, options, names, margins))
            for names in options.inputs.values()
        ]
        for names in options.targets.values():
            classes = options.one_hot
            if classes is True:
                counts = class_counts(exports, names[0], "one_hot=True", "one_hot=5", margins=kept == "keep")
                classes = 1 + max(0, *counts)
            convert = None if classes is None else one_hot(classes, options.target_dtype)
            component = Component.of(export, names, kept, options.target_dtype, convert=convert)
            if classes is not None:
                _require_single(export, names[0], f"one_hot={classes}")
            components.append(component)
        weighting = options.weighting
        factors: tuple[tuple[int, ...], ...] = ()
        if weighting is not None:
            factors = _add_factors(components, exports, options, weighting, kept)
        if options.augment is not None:
            for component in components:
                if not component.is_flat(export):
                    require_square(export.area(component.margins))
        return cls(options.inputs, options.targets, tuple(components), factors)

    @property
    def plain(self) -> bool:
        """Whether tensors are elements as they are, without names and weights."""
        return bool(self.targets) and not self.factors and None in self.inputs and None in self.targets

    def combine(self, parsed: Sequence[Any]) -> tuple[Any, ...]:
        """Return the tensors of inputs, targets and weights from those of all components."""
        count = len(self.inputs) + len(self.targets)
        targets = parsed[len(self.inputs) : count]
        weights = [
            product([parsed[number] for number in numbers], target)
            for numbers, target in zip(self.factors, targets, strict=bool(self.factors))
        ]
        return (*parsed[:count], *weights)

    def pack(self, *tensors: Any) -> Any:
        """Return an element from the result of `combine`."""
        count = len(self.inputs)
        inputs = pack(self.inputs, tensors[:count])
        if not self.targets:
            return inputs
        targets, weights = tensors[count:][: len(self.targets)], tensors[count:][len(self.targets) :]
        if not weights:
            return inputs, pack(self.targets, targets)
        return (
            inputs,
            pack(self.targets, targets),
            pack(self.targets, [weight[..., 0] for weight in weights]),
        )


def _normalized(
    exports: Sequence[OpenedExport], options: DatasetOptions, names: Sequence[str], margins: Margins
) -> dict[str, Any]:
    """Return how inputs are normalized. Masked pixels are 0 before, as in predictions."""
    scales = options.normalize
    if scales is None:
        return {}
    if isinstance(scales, str):
        scales = scales_of_exports([(str(each), each.statistics) for each in exports], scales)
    scaling = offsets_and_scales(scales, names)
    known = masked_values(exports, names, options.default_value)
    masked = {name: value for name, value in known.items() if value}  # 0 does not change
    if options.default_value is None:
        masked = unambiguous_values(exports, list(masked), None, margins, "normalize")
    return {"masked": masked, "convert": scaled(scaling)}


def _add_factors(
    components: list[Component],
    exports: Sequence[OpenedExport],
    options: DatasetOptions,
    weighting: Weighting,
    margins: Margins,
) -> tuple[tuple[int, ...], ...]:
    """Append the factors of weights to the components, and return their numbers for each target."""
    export, shared = exports[0], []
    targets = components[len(options.inputs) :]

    def add(names: Sequence[str], dtype: str, **fields: Any) -> int:
        components.append(Component.of(export, names, margins, dtype, **fields))
        return len(components) - 1

    for name in weighting.bands:
        masked = masked_values(exports, [name], options.default_value)
        shared.append(add([name], "float32", masked=masked, convert=without_nan))
        _check_shape(export, components[-1], targets, name)
    own: list[list[int]] = [[] for _ in targets]
    classes = weighting.classes
    if classes is not None:
        [name] = group_names(options.targets)
        _require_single(export, name, "class_weight")
        weights = balanced_weights(exports, name) if classes == "balanced" else classes
        shared.append(add([name], "float64", convert=class_weights(weights)))
    if classes is not None or weighting.mask:
        option = "sample_weight='mask'" if weighting.mask else "class_weight"
        if weighting.mask and any(band.name == "mask" for band in export.content.bands):
            raise OptionError(
                "sample_weight='mask' is ambiguous, because there is a band named 'mask': pass "
                "sample_weight=['mask'] to use the band as the weight."
            )
        harmless = {
            value: 0 for value, weight in (weights if classes is not None else {}).items() if not weight
        }
        for numbers, names in zip(own, options.targets.values(), strict=True):
            masked = unambiguous_values(exports, names, options.default_value, margins, option, harmless)
            numbers.append(add(names, "float32", masked=masked, validity=True, convert=all_bands))
    return tuple((*numbers, *shared) for numbers in own)


def _check_shape(export: OpenedExport, factor: Component, targets: Sequence[Component], name: str) -> None:
    """Raise an error if a band of weights has more axes than a target."""
    for target in targets:
        steps = factor.depth not in (None, target.depth)
        if steps or (target.is_flat(export) and not factor.is_flat(export)):
            raise OptionError(
                f"sample_weight={name!r} has a value for each {'step' if steps else 'pixel'}, but the target "
                f"{target.bands[0].name!r} has not. Omit it, or use a band with the shape of the targets."
            )


def _require_single(export: OpenedExport, name: str, option: str) -> None:
    """Raise an error if a record has several class numbers that are not pixels."""
    if export.content.labels.get(name, 1) > 1:
        raise OptionError(
            f"{option} requires one class number per record, but {name!r} has "
            f"{export.content.labels[name]} values. Omit {option.split('=')[0]}."
        )

"""Read exports as `tf.data` pipelines for training."""

from xee_tf.training.dataset import tf_dataset
from xee_tf.training.groups import Bands
from xee_tf.training.normalizing import (
    Normalize,
    NormalizeMethod,
    Scales,
    normalization,
    offsets_and_scales,
    read_scales,
)
from xee_tf.training.patches import Patches, open_patches
from xee_tf.training.sequence import PatchSequence, patches_of
from xee_tf.training.sources import Exports
from xee_tf.training.spec import SequenceSpec, feature_spec
from xee_tf.training.weighting import ClassWeight, SampleWeight

__all__ = [
    "Bands",
    "ClassWeight",
    "Exports",
    "Normalize",
    "NormalizeMethod",
    "PatchSequence",
    "Patches",
    "SampleWeight",
    "Scales",
    "SequenceSpec",
    "feature_spec",
    "normalization",
    "offsets_and_scales",
    "open_patches",
    "patches_of",
    "read_scales",
    "tf_dataset",
]

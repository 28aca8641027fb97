"""Read exports as `tf.data` pipelines for training."""

from xee_tf.training.dataset import tf_dataset
from xee_tf.training.normalizing import Normalize
from xee_tf.training.patches import Patches, open_patches
from xee_tf.training.sequence import PatchSequence
from xee_tf.training.sources import Exports
from xee_tf.training.spec import SequenceSpec, feature_spec

__all__ = [
    "Exports",
    "Normalize",
    "PatchSequence",
    "Patches",
    "SequenceSpec",
    "feature_spec",
    "open_patches",
    "tf_dataset",
]

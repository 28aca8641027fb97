"""``python -m xee_tf.cli``."""

import sys

from xee_tf.cli import main

sys.exit(main())

"""Entry point of ``python -m xee_tf``."""

import sys

from xee_tf_cli import main

if __name__ == "__main__":
    sys.exit(main())

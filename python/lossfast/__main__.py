"""``python -m lossfast``: the command line."""

import sys

from lossfast.cli import main

sys.exit(main())

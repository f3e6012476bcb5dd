"""`python -m mempalace_broker`: the same as `mempalace-broker`."""

import sys

from .cli import main

sys.exit(main())

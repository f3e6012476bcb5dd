"""`python -m mempalace_broker.broker`: the daemon, as a starter runs it."""

import sys

from .daemon import main

sys.exit(main())

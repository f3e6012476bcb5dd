"""`python -m mempalace_broker.route.bridge`: bridge/start runs this, nobody does by hand."""

import sys

from .program import main

sys.exit(main())

"""`python -m mempalace_broker.route.bridge`: started by route/ssh, never by hand."""

import sys

from .program import main

sys.exit(main())

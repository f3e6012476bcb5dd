"""`python -m mempalace_broker.client.bridge`: started by client/ssh, never by hand."""

import sys

from .program import main

sys.exit(main())

"""`python -m pi_devbox.home SKELETON`: bring what the image has for a home into one that an older image filled.

`merge` decides and is pure; `fill` reads and writes; `mounts` knows what is the host's. Standard library only.
"""

from __future__ import annotations

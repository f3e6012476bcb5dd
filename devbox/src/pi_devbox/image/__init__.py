"""What the devbox image is built from, under which tags, and whether it must be: the CI's decisions as a program.

`recipe`, `fingerprint`, `answers`, `retry`, `dockerfile`, `plan` and `commands` are pure; `tree`, `web`, `process`,
`resolve`, `registry` and `runner` touch the world and decide nothing.
"""

from __future__ import annotations

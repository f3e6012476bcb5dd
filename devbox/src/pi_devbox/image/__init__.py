"""Decide whether the images of the devbox must be built, from what, and under which tags; build and publish them.

`address`, `answers`, `commands`, `dockerfile`, `fingerprint`, `model`, `plan`, `recipe` and `retry` are pure. `asking`,
`ghoutput`, `process`, `registry`, `resolve`, `runner`, `tree` and `web` do IO and decide nothing. `session` brings both
together for the commands in `cli`.
"""

from __future__ import annotations

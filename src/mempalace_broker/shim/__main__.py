"""`python -m mempalace_broker.shim` is mp-shim."""

from __future__ import annotations

from .main import entry

entry()

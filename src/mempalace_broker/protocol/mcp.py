"""Names of the Model Context Protocol that shim and broker share.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

INITIALIZE = "initialize"
TOOLS_LIST = "tools/list"
TOOLS_CALL = "tools/call"
CANCELLED = "notifications/cancelled"
INITIALIZED = "notifications/initialized"

# newest first; mempalace 3.4.0 and 3.11.0 both know exactly these
PROTOCOLS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

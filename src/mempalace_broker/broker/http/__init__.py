"""MCP over HTTP, on this machine's own address: one more way to the same lanes."""

"""mp-shim: the stdio MCP server that an agent starts. Standard library only; its import budget is tested."""

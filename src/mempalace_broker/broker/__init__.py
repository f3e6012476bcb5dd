"""The daemon. The only package that imports asyncio."""

"""Mount tables and paths, compared without touching a filesystem."""

"""Which kernel owns the palace's files, what is mounted where, and whether a path means the same to another process."""

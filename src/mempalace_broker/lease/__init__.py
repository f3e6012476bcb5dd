"""Who owns the palace where kernel locks do not reach (docs/leases.md)."""

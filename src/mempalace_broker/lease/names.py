"""The names in the folder of leases; what they mean stands in files.py. Pure."""

from __future__ import annotations

from .machine.lease import MAX_EPOCH, Listing

LEASE, ASK, GONE = "lease", "ask", "gone"
_DIGITS = 12
_MOST_DIGITS = 20  # of a sequence


def lease_name(epoch: int) -> str:
    """The name of an epoch."""
    return f"{epoch:0{_DIGITS}}"


def gone_name(epoch: int, sequence: int) -> str:
    """The name that says: the holder of that epoch is gone."""
    return f"{GONE}-{lease_name(epoch)}-{sequence}"


def words(name: str) -> tuple[str, int, int]:
    """What a name says: (kind, epoch, sequence); kind "" for names that no broker makes."""
    kind, _, rest = name.partition("-")
    number, _, more = rest.partition("-") if kind in (ASK, GONE) else (name, "", "")
    if not (name.isascii() and number.isdigit() and len(number) == _DIGITS and 0 < int(number) <= MAX_EPOCH):
        return "", 0, 0
    if kind == ASK:
        return ASK, int(number), 0
    if kind == GONE:
        return (GONE, int(number), int(more)) if more.isdigit() and len(more) <= _MOST_DIGITS else ("", 0, 0)
    return LEASE, int(number), 0


def parse_names(names: list[str], not_files: frozenset[str] = frozenset()) -> Listing:
    """What a folder's names say. Hidden ones are the system's or somebody's tool, all others strange.

    Args:
        not_files: those of them that are no regular files, as every lease is one.
    """
    epochs, gone, requested, strange, taken = [], [], [], [], 0
    for name in names:
        kind, epoch, sequence = words(name)
        if kind == LEASE and name in not_files:
            strange.append(name)
            taken = max(taken, epoch)
        elif kind == LEASE:
            epochs.append(epoch)
        elif kind == ASK:
            requested.append(epoch)
        elif kind == GONE:
            gone.append((epoch, sequence))
        elif not name.startswith("."):
            strange.append(name)
    return Listing(tuple(sorted(epochs)), frozenset(gone), frozenset(requested), tuple(sorted(strange)), taken)

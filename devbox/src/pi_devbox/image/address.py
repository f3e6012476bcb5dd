"""What names of images and hosts say about where to connect, and how."""

from __future__ import annotations

import ipaddress


def split_name(image: str) -> tuple[str, str]:
    """(address of its registry, repository). As docker has it, a first part without "." or ":" is no host."""
    host, slash, rest = image.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "docker.io", image
    if host in {"docker.io", "index.docker.io"}:
        return "https://registry-1.docker.io", rest if "/" in rest else f"library/{rest}"
    plain = is_loopback(host.rpartition(":")[0] if ":" in host else host)
    return f"{'http' if plain else 'https'}://{host}", rest


def is_loopback(host: str) -> bool:
    """Is it this machine, by name or address?"""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

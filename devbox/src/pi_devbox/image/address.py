"""From the names of images and hosts to where and how to connect."""

from __future__ import annotations

import ipaddress


def split_name(image: str) -> tuple[str, str]:
    """Split an image's name into registry URL and repository. As in docker, a host has a "." or ":" in it."""
    host, slash, rest = image.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "docker.io", image
    if host in {"docker.io", "index.docker.io"}:
        return "https://registry-1.docker.io", rest if "/" in rest else f"library/{rest}"
    plain = is_loopback(host.rpartition(":")[0] if ":" in host else host)
    return f"{'http' if plain else 'https'}://{host}", rest


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by name or address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

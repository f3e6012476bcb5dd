"""Resolves one companion, for the tests of `resolve`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping

from devbox.tests.image.checkout import COMPANION, HEAD
from pi_devbox.image.asking import Pace
from pi_devbox.image.model import Resolved
from pi_devbox.image.recipe import Project, parse
from pi_devbox.image.resolve import Access, resolve
from pi_devbox.image.retry import Policy
from pi_devbox.image.web import Web

QUICK = Policy(attempts=3, first=0.01, longest=0.1, each=5.0, total=20.0)
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GITHUB_", "GITEA_"))}


def project(kind: str, url: str, ref: str = "main", token_host: str = "") -> Project:
    tokens = f'"{token_host}" = "KIT_TOKEN"' if token_host else ""
    return parse(HEAD % tokens + COMPANION % ("kit", kind, url, ref, "base", "KIT_REF"), "x")


async def _ask(what: Project, policy: Policy, env: Mapping[str, str]) -> list[Resolved]:
    async with Web() as web:
        return await resolve(what, Access(web, {**CLEAN, **env}, what.tokens, Pace(policy), time.time))


def ask(what: Project, policy: Policy = QUICK, **env: str) -> Resolved:
    [found] = asyncio.run(_ask(what, policy, env))
    return found

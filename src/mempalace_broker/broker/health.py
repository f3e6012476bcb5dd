"""Runs `mempalace-broker doctor` in a process of its own: it takes a second, and loads modules that no broker needs."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.palace import PalaceIdentity

LIMIT_S = 60.0
_FAILED = {"ok": False, "findings": []}


class Doctor:
    """Runs one doctor at a time; requests that come meanwhile get the same answer.

    Args:
        env: the broker's environment; it names the palace, unless a flag did.
    """

    def __init__(self, identity: PalaceIdentity, env: Mapping[str, str]) -> None:
        self._argv = [sys.executable, "-P", "-m", "mempalace_broker", "doctor", "--json", *identity.options]
        self._env = dict(env)
        self._running: asyncio.Future[bytes] | None = None

    async def ask(self) -> bytes:
        """Return the JSON that doctor prints; if it fails, the same without findings and with `problem`."""
        if self._running is not None:
            return await self._running
        self._running = asyncio.get_running_loop().create_future()
        try:
            answer = await self._run()
            self._running.set_result(answer)
            return answer
        finally:
            if not self._running.done():
                self._running.cancel()
            self._running = None

    async def _run(self) -> bytes:
        pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=none, stdout=pipe, stderr=none, env=self._env, cwd="/"
            )
        except OSError as exc:
            return _failed(f"doctor can't be run: {exc}")
        try:
            out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        except TimeoutError:
            return _failed(f"doctor did not answer within {LIMIT_S:g} s")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return out if out.startswith(b"{") else _failed(f"doctor failed with exit code {process.returncode}")


def _failed(problem: str) -> bytes:
    return json.dumps({**_FAILED, "problem": problem}).encode()

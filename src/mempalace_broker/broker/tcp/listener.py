"""The broker's TCP listener, where the setting `tcp` asks for one: address, port, token, and what status says of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError
from ...settings import TCP_ANY
from ...system.tcp_options import set_tcp_options
from ...system.token_file import ensure_token, restore_token, token_path
from .address import Unavailable, find_address
from .gate import Gate
from .port import bind_tcp, candidate_ports, endpoint_of
from .refusals import Refusals

if TYPE_CHECKING:
    import asyncio
    import logging
    import socket
    from collections.abc import Callable

    from ...settings import BrokerSettings
    from ...system.clock import Clock
    from .gate import Admit

RETRY_S = 30.0


class TcpListener:
    """One TCP listener; does nothing where the setting `tcp` is empty.

    Args:
        root: the state root, where the token is. last_port: the last broker's, 0 where it is not known.
        admit: takes sockets that have proved themselves.
        revoked: called when the token was replaced: clients that showed the old one must go.
    """

    def __init__(
        self,
        *,
        settings: BrokerSettings,
        root: str,
        last_port: int,
        clock: Clock,
        log: logging.Logger,
        admit: Admit,
        revoked: Callable[[], None],
    ) -> None:
        self.name = settings.tcp
        self.endpoint = ""
        self.token = ""
        self._port = settings.tcp_port
        self._ports = candidate_ports(self._port, last_port, root)
        self._usual_port = self._ports[0]
        self._root = root
        self._clock = clock
        self._log = log
        self._admit = admit
        self._revoked = revoked
        self._refusals = Refusals(clock.monotonic, log.warning)
        self._address = ""
        self._gate: Gate | None = None
        self._mark: tuple[int, int] | None = None  # inode and change time of the file that was read
        self._warning: dict[str, str] | None = None
        self._look_at = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen if that is configured. Never fails: if it is impossible now, warn and try again later."""
        if self.name:
            self._look(loop)

    def check(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Look again at address and token; return whether endpoint or token changed. Call it every few seconds."""
        if not self.name:
            return False
        before = self.endpoint, self.token
        now = self._clock.monotonic()
        self._refusals.flush(now)
        if self.token:
            self._reread()
        if now >= self._look_at:
            self._look(loop)
        return (self.endpoint, self.token) != before

    def close(self) -> None:
        """Stop listening."""
        self.endpoint = self._address = ""
        if self._gate is not None:
            self._gate.close()
            self._gate = None

    # -- address and socket

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen where we should by now; addresses come and go with container engines."""
        self._look_at = self._clock.monotonic() + RETRY_S
        try:
            if not self.token:
                self._read()
            address = find_address(self.name)
            if address == self._address:
                return
            self.close()
            self._open(loop, address)
        except Unavailable as exc:
            self.close()
            self._degrade(str(exc), exc.hint)
        except BrokerError as exc:
            self._degrade(exc.message.rstrip("."), exc.hint)

    def _open(self, loop: asyncio.AbstractEventLoop, address: str) -> None:
        sock = bind_tcp(address, self._ports)
        self._gate = Gate(
            sock,
            loop=loop,
            token=lambda: self.token,
            admit=self._take,
            refusals=self._refusals,
            log=self._log,
        )
        self._address, self.endpoint = address, endpoint_of(sock)
        if not self._port:
            self._ports = list(dict.fromkeys([sock.getsockname()[1], *self._ports]))
        self._warning = None
        self._log.info("listening on %s (%s)", self.endpoint, self.name)

    def _degrade(self, why: str, hint: str) -> None:
        warning = {
            "what": f"not listening on TCP ({self.name}): {why}; tried again every {RETRY_S:g} s",
            "hint": hint,
        }
        if warning != self._warning:
            self._warning = warning
            self._log.warning("%s", warning["what"])

    def _take(self, sock: socket.socket, rest: bytes, address: str) -> None:
        set_tcp_options(sock)
        self._admit(sock, rest, address)

    # -- the token

    def _read(self) -> None:
        self.token = ensure_token(self._root)
        self._mark = self._stat()

    def _stat(self) -> tuple[int, int] | None:
        try:
            info = os.lstat(token_path(self._root))
        except FileNotFoundError:
            return None
        return info.st_ino, info.st_ctime_ns  # which chmod changes, too

    def _reread(self) -> None:
        """Use a new token at once; put back one that was removed, as the record is."""
        mark = self._stat()
        if mark == self._mark:
            return
        if mark is None:
            self._log.warning("%s is gone: writing it again", token_path(self._root))
            restore_token(self._root, self.token)
            self._mark = self._stat()
            return
        old = self.token
        try:
            self._read()
        except BrokerError as exc:
            self.token, self._mark = "", None  # others may know the old one: stop listening until this is fixed
            self.close()
            self._degrade(exc.message.rstrip("."), exc.hint)
        if self.token != old:
            self._log.info("the token for TCP was replaced: its sessions have to show the new one")
            if self._gate is not None:
                self._gate.clear()
            self._revoked()

    # -- what people see

    def degraded(self) -> list[dict[str, str]]:
        """What is not as configured, or deserves a second look."""
        out = [self._warning] if self._warning is not None else []
        if self.endpoint and not self.endpoint.endswith(f":{self._usual_port}"):
            out.append(
                {
                    "what": f"port {self._usual_port} is taken by another process: listening on {self.endpoint}; "
                    "clients that name the usual port reach that process",
                    "hint": f"see who listens there (`ss -ltnp 'sport = :{self._usual_port}'`), then "
                    "`mempalace-broker restart`; or name a free port in tcp_port",
                }
            )
        if self.name == TCP_ANY and self.endpoint:
            out.append(
                {
                    "what": f"{self.endpoint} is exposed: every address of this machine, unencrypted, behind the token",
                    "hint": "name one address or interface in tcp, then `mempalace-broker restart`",
                }
            )
        return out

    def as_json(self) -> dict[str, Any] | None:
        """For status; None where `tcp` is empty. Nothing secret."""
        if not self.name:
            return None
        return {
            "asked": self.name,
            "endpoint": self.endpoint or None,
            "waiting": self._gate.waiting if self._gate is not None else 0,
            "refused": dict(self._refusals.totals),
        }

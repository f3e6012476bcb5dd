"""The way to the broker, whatever lies in between: here, over ssh, over TCP, or a broker of our own.

    $MEMPALACE_BROKER names an endpoint        that and nothing else
    somebody listens in the state root         same kernel: done
    nobody does, and the place is ours         connector: elect and start a broker here
    nobody does, and the place is foreign      ssh, then tcp, then direct, as far as they are configured

A machine that never blocks, like the `UnixRoute` it drives. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import BrokerError, BrokerUnavailable
from ..system.clock import Deadline
from ..system.paths import state_files
from .discover import ENDPOINT_VARIABLE, fixed_endpoint
from .endpoint import SSH, UNIX, Endpoint
from .unix import ONCE, START_IF_NEEDED, Attempt, Connected, Failed, UnixRoute, Waiting, complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..locality.locality import Place
    from ..protocol.palace import FileView, PalaceIdentity
    from ..system.paths import StateFiles
    from .ssh import SshTarget

SSH_LIMIT_S = 25.0  # for a first connection over a slow line, and a broker that starts there
TCP_LIMIT_S = 6.0


class RouteFinder:
    """One attempt to reach the broker of one palace by any route, resumable.

    Arguments as `UnixRoute`'s. `files`: the palace's state files as they are named here.
    """

    def __init__(
        self,
        identity: PalaceIdentity,
        env: Mapping[str, str],
        deadline: Deadline,
        *,
        mode: str = START_IF_NEEDED,
        started_by: str = "",
        heed_failures: bool = True,
    ) -> None:
        self.files: StateFiles = state_files(identity, env)
        self._identity = identity
        self._env = env
        self._deadline = deadline
        self._mode = mode
        self._started_by = started_by
        self._heed_failures = heed_failures
        self._route: Attempt | None = None
        self._name = ""
        self._left: list[tuple[str, Callable[[], Attempt]]] = []
        self._place: Place | None = None
        self._failures: list[tuple[str, BrokerError]] = []
        self._error: BrokerError | None = None

    def step(self) -> Connected | Waiting | Failed:
        """Do what can be done without waiting. Never raises a BrokerError: it returns Failed."""
        while self._error is None:
            try:
                if self._route is None:
                    self._route = self._first()
                found = self._route.step()
                if not isinstance(found, Failed):
                    return found
                self._next(found.error)
            except BrokerError as exc:
                self.close()
                self._error = exc
        return Failed(self._error)

    def doubt(self, found: Connected, welcome: Mapping[str, Any]) -> str:
        """Why the broker that welcomed us is not the one of this palace, "" if nothing speaks against it.

        An endpoint that the user named is his choice.
        """
        if self._place is None or not is_remote(found):
            return ""
        from .verify import doubt

        return doubt(self.files, welcome)

    def view(self, found: Connected) -> FileView:
        """How this side sees the files, for hello on that connection."""
        from ..locality.view import view_of

        return view_of(self._identity.path, remote=is_remote(found))

    def close(self) -> None:
        """Give up."""
        if self._route is not None:
            self._route.close()
            self._route = None

    def _first(self) -> Attempt:
        endpoint = fixed_endpoint(self._env)
        if endpoint is None or endpoint.kind == UNIX:
            return self._connector(self.files)
        from . import plan as routes

        self._name = f"${ENDPOINT_VARIABLE}"
        if endpoint.kind == SSH:
            start = self._mode != ONCE
            return routes.ssh_by_endpoint(endpoint, self._env, self._deadline, started_by=self._started_by, start=start)
        return routes.tcp_by_endpoint(endpoint, self._env, self.files, self._deadline)

    def _connector(self, files: StateFiles, *, direct: bool = False) -> UnixRoute:
        return UnixRoute(
            self._identity,
            self._env,
            self._deadline,
            mode=self._mode,
            started_by=self._started_by,
            heed_failures=self._heed_failures,
            files=files,
            direct=direct,
        )

    def _next(self, error: BrokerError) -> None:
        """A route failed: take the next one, or raise what was learned on all of them."""
        from ..locality.locality import PalaceElsewhere

        self.close()
        if isinstance(error, PalaceElsewhere) and self._place is None:
            self._choose(error)
        elif self._place is None:
            raise error
        else:
            self._failures.append((self._name, error))
        if not self._left:
            raise self._summary(error)
        self._name, make = self._left.pop(0)
        try:
            self._route = make()
        except BrokerError as exc:
            self._next(exc)

    def _choose(self, error: BrokerError) -> None:
        """The palace is another kernel's: which ways are there from here?"""
        from ..locality.locality import place_of
        from . import plan as routes

        self._place = place_of(self.files, self._identity.graph)
        plan = routes.plan(self.files, self._env)
        if plan.ssh is not None:
            target = plan.ssh
            self._left.append((f"ssh {target.host}", self._ssh(target)))
        for endpoint in plan.tcp:
            self._left.append((str(endpoint), self._tcp(endpoint, plan.token)))
        if plan.direct:
            self._left.append(("direct", self._direct))
        else:
            self._failures.append(("direct", BrokerUnavailable(plan.why_not_direct)))
        if not self._left:
            raise self._summary(error)

    def _ssh(self, target: SshTarget) -> Callable[[], Attempt]:
        from . import plan as routes

        return lambda: routes.ssh(
            target, self._env, self._span(SSH_LIMIT_S), started_by=self._started_by, start=self._mode != ONCE
        )

    def _tcp(self, endpoint: Endpoint, token: str) -> Callable[[], Attempt]:
        from . import plan as routes

        return lambda: routes.tcp(endpoint, token, self._span(TCP_LIMIT_S))

    def _direct(self) -> Attempt:
        from ..locality.locality import parted

        apart = parted(self._identity)
        if apart:
            raise BrokerUnavailable(apart, hint="give --palace, which keeps the graph in the palace; or a bridge")
        return self._connector(self.files.direct(), direct=True)

    def _span(self, seconds: float) -> Deadline:
        return Deadline.after(self._deadline.clock, min(seconds, self._deadline.remaining()))

    def _summary(self, last: BrokerError) -> BrokerError:
        """All that was tried, in one error; what mends the first of them comes first."""
        assert self._place is not None
        tried = "; ".join(f"{name}: {exc.message.rstrip('.')}" for name, exc in self._failures) or "nothing"
        hint = next((exc.hint for _, exc in self._failures if exc.hint), last.hint)
        error = BrokerUnavailable(f"no broker for {self._identity.path}: {self._place.why}. Tried {tried}.", hint=hint)
        codes = [exc.code for _, exc in self._failures]
        if codes and len(set(codes)) == 1:
            error.code = codes[0]
        return error


def is_remote(found: Connected) -> bool:
    """Whether a connection leads to another machine, as far as we know."""
    return "://" in found.endpoint


def reach(
    identity: PalaceIdentity,
    deadline: Deadline,
    *,
    env: Mapping[str, str] | None = None,
    mode: str = START_IF_NEEDED,
    started_by: str = "",
) -> Connected:
    """Run a `RouteFinder` to its end, blocking, for a person who has just mended something. As `connector.complete`."""
    machine = RouteFinder(
        identity,
        os.environ if env is None else env,
        deadline,
        mode=mode,
        started_by=started_by,
        heed_failures=False,
    )
    return complete(machine, deadline.clock)

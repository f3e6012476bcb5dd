"""The route to the broker, whatever lies in between: here, over ssh, over TCP, or a broker of our own.

    $MEMPALACE_BROKER names an endpoint            that and nothing else
    somebody listens in the state root             same kernel: done
    nobody does, and this kernel owns the files    UnixRoute: elect and start a broker here
    nobody does, and another kernel owns them      ssh, then tcp, then direct, as far as they are configured (plan)

`locality` tells whose the files are. A direct broker serves 3.5 s later than others: its lease must settle first
(lease/machine).
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..errors import BrokerError, BrokerUnavailable
from ..system.clock import Deadline
from .attempt import ONCE, WAIT_ONLY, Attempt, Connected, Failed, StartPolicy, Waiting
from .discover import ENDPOINT_VARIABLE, fixed_endpoint
from .unix import UnixRoute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..locality.locality import Locality
    from ..protocol.palace import FileView
    from ..system.paths import Context
    from .bridge.wire import SshTarget
    from .endpoint import Endpoint

SSH_LIMIT_S = 25.0  # for a first connection over a slow line, and a broker that starts there
TCP_LIMIT_S = 6.0


class RouteFinder(Attempt):
    """One attempt to reach the broker of one palace by any route, resumable.

    Args:
        context: the palace, and its files as they are named here.
        deadline: of the whole attempt. policy: whether to start a broker, and in whose name.
    """

    def __init__(self, context: Context, deadline: Deadline, policy: StartPolicy | None = None) -> None:
        super().__init__(deadline)
        self._context = context
        self._policy = policy or StartPolicy()
        self._route: Attempt | None = None
        self._name = ""
        self._left: list[tuple[str, Callable[..., Attempt], tuple[Any, ...]]] = []  # still to be tried
        self._locality: Locality | None = None
        self._failures: list[tuple[str, BrokerError]] = []

    def close(self) -> None:
        """Give up."""
        if self._route is not None:
            self._route.close()
            self._route = None

    def verify_palace(self, found: Connected, welcome: Mapping[str, Any]) -> str:
        """Why the broker that welcomed us is not the one of this palace, "" if nothing speaks against it.

        An endpoint that the user named is the user's choice.
        """
        if self._locality is None or not found.remote:
            return ""
        from .verify import verify_palace

        return verify_palace(self._context.files, welcome)

    def view(self, found: Connected) -> FileView:
        """How this side sees the files, for hello on that connection."""
        from ..system.kernel import view_of

        return view_of(self._context.identity, remote=found.remote, named=self._locality is None)

    def _step(self) -> Connected | Waiting:
        if self._route is None:
            self._route = self._first()
        while True:
            found = self._route.step()
            if not isinstance(found, Failed):
                return found
            self._route = self._next(found.error)

    def _first(self) -> Attempt:
        endpoint = fixed_endpoint(self._context.env)
        if endpoint is not None:
            from .endpoint import UNIX

            if endpoint.kind != UNIX:
                return self._named(endpoint)
        return UnixRoute(self._context, self._deadline, self._policy)

    def _named(self, endpoint: Endpoint) -> Attempt:
        from . import plan
        from .endpoint import SSH, TCP

        self._name = f"${ENDPOINT_VARIABLE}"
        if endpoint.kind == SSH:
            return plan.named_ssh(endpoint, self._context.env, self._deadline, self._remote_policy())
        assert endpoint.kind == TCP
        return plan.named_tcp(endpoint, self._context, self._deadline)

    def _remote_policy(self) -> StartPolicy:
        """For ssh: a look must not open a bridge, but one that is up gets the time to answer."""
        return self._policy.with_mode(WAIT_ONLY) if self._policy.mode == ONCE else self._policy

    def _next(self, error: BrokerError) -> Attempt:
        """A route failed: the next one. Raises what was learned on all of them where there is none."""
        from ..locality.locality import NoElectionHere

        self.close()
        if isinstance(error, NoElectionHere) and self._locality is None:
            self._choose(error.locality)
        elif self._locality is None:
            raise error
        else:
            self._failures.append((self._name, error))
        while self._left:
            self._name, make, args = self._left.pop(0)
            try:
                return make(*args)
            except BrokerError as exc:
                self._failures.append((self._name, exc))
                error = exc
        raise self._summary(error)

    def _choose(self, locality: Locality) -> None:
        """Another kernel owns the palace: which routes are there from here?"""
        from . import plan

        self._locality = locality
        routes = plan.plan_routes(self._context, locality.filesystem)
        if routes.ssh is not None:
            self._left.append((f"ssh {routes.ssh.host}", self._ssh, (routes.ssh,)))
        self._left += [(str(endpoint), self._tcp, (endpoint, routes.token)) for endpoint in routes.tcp]
        if routes.direct:
            self._left.append(("direct", self._direct, ()))
        else:
            self._failures.append(("direct", BrokerUnavailable(routes.why_not_direct)))

    def _ssh(self, target: SshTarget) -> Attempt:
        from .ssh import SshRoute

        return SshRoute(target, self._limit(SSH_LIMIT_S), self._remote_policy(), env=self._context.env)

    def _tcp(self, endpoint: Endpoint, token: str) -> Attempt:
        from .tcp import TcpRoute

        return TcpRoute(endpoint, token, self._limit(TCP_LIMIT_S))

    def _direct(self) -> Attempt:
        from ..locality.locality import separate_mounts
        from ..locality.mounts import is_local

        separate = separate_mounts(self._context.identity)
        if separate:
            raise BrokerUnavailable(separate, hint="give --palace, which keeps the graph in the palace; or a bridge")
        context = self._context.replace(files=self._context.files.direct(is_local))
        return UnixRoute(context, self._deadline, self._policy, direct=True)

    def _limit(self, seconds: float) -> Deadline:
        return Deadline.after(self._clock, min(seconds, self._deadline.remaining()))

    def _summary(self, last: BrokerError) -> BrokerError:
        """All that was tried, in one error; the hint is that of the first."""
        assert self._locality is not None
        tried = "; ".join(f"{name}: {exc.message.rstrip('.')}" for name, exc in self._failures) or "nothing"
        hint = next((exc.hint for _, exc in self._failures if exc.hint), last.hint)
        path = self._context.identity.path
        error = BrokerUnavailable(f"no broker for {path}: {self._locality.why}. Tried {tried}.", hint=hint)
        codes = {exc.code for _, exc in self._failures}
        if len(codes) == 1:
            error.code = codes.pop()
        return error

"""Which routes lead to a palace that another kernel owns, by the settings for containers.

Imported late.

The settings come from table [container]: which machine has the palace may stand in broker.toml in the shared state
root, and reaches a shim whose environment was filtered; what runs or maps files comes from the user's own config.toml.
"""

from __future__ import annotations

import os

from ..errors import BrokerUnavailable
from ..protocol.record import DiscoveryRecord
from ..settings import ContainerSettings, DirectMode
from ..settings_files import PrivateSettings, SharedSettings
from ..system import kernel
from ..system.paths import expand, home_of
from ..system.record_file import RecordFile
from .endpoint import TCP, Endpoint, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..system.clock import Deadline
    from ..system.paths import Context, StateFiles
    from .attempt import StartPolicy
    from .bridge.wire import SshTarget
    from .ssh import SshRoute
    from .tcp import TcpRoute

BRIDGE_CONFIG = "~/.ssh-local/config"  # written by pi-devbox when it sets up LAN access
BRIDGE_HOST = "host"

# Docker Desktop's share keeps names and attributes for 3,600 s (docker/for-mac#7647): a holder that lives looks silent.
_TOO_STALE_FOR_LEASES = ("fakeowner",)


class Plan:
    """The routes in the order in which they are tried.

    Attributes:
        ssh: None where no host is configured. tcp: addresses to try, [] where the broker has none.
        token: for tcp. direct: whether the palace may be opened from here as the last resort.
        why_not_direct: where it may not.
    """

    __slots__ = ("direct", "ssh", "tcp", "token", "why_not_direct")

    def __init__(
        self, ssh: SshTarget | None, tcp: list[Endpoint], token: str, *, direct: bool, why_not_direct: str
    ) -> None:
        self.ssh = ssh
        self.tcp = tcp
        self.token = token
        self.direct = direct
        self.why_not_direct = why_not_direct


def plan_routes(context: Context, filesystem: str) -> Plan:
    """Read the settings and the record.

    Args:
        filesystem: the type of the filesystem by which another kernel owns the palace.

    Raises:
        UsageError: a setting makes no sense.
    """
    files, env = context.files, context.env
    settings = PrivateSettings.read(env).container(env, SharedSettings.read(files.toml))
    target = _target(settings.ssh_host, settings, env)
    tcp, token = _tcp(files, env)
    listens = bool(tcp) or _listener_wanted(files)
    bridged = target is not None or listens
    why = ""
    if filesystem in _TOO_STALE_FOR_LEASES:
        why = f"a lease on {filesystem} proves nothing, because what it shows may be an hour old"
    elif settings.direct is DirectMode.NEVER:
        why = f"direct mode is switched off ({settings.sources['direct']})"
    elif kernel.MACOS and settings.direct is not DirectMode.ALWAYS:  # it can't read past its cache of a share
        why = "a Mac may see old leases on a share (direct = always, if no other machine uses this palace)"
    elif bridged and settings.direct is not DirectMode.ALWAYS:
        why = "a bridge is configured, so this side must not open the palace by itself (direct = auto)"
        if listens and not tcp:
            why += "; the broker has a TCP listener, but does not run: start it on its machine (idle_s = 0 keeps it)"
    return Plan(target, tcp, token, direct=not why, why_not_direct=why)


def _target(host: str, settings: ContainerSettings, env: Mapping[str, str]) -> SshTarget | None:
    """The ssh destination for the palace's machine, None where nothing names one."""
    from .bridge.wire import SshTarget

    home = home_of(env)
    default = expand(BRIDGE_CONFIG, home)
    bridge = default if os.path.isfile(default) else ""
    if not host and not bridge:
        return None
    end = parse(host if host.startswith("ssh://") else f"ssh://{host or BRIDGE_HOST}", home)
    config = expand(settings.ssh_config, home) if settings.ssh_config else bridge
    return SshTarget(
        end.host, user=end.user, port=end.port, config=config, state_root=end.path, command=settings.ssh_command
    )


def _tcp(files: StateFiles, env: Mapping[str, str]) -> tuple[list[Endpoint], str]:
    """The broker's TCP addresses and its token, as the shared record tells them."""
    record = RecordFile(files.record).read()
    if not isinstance(record, DiscoveryRecord) or not record.token:
        return [], ""
    named = [parse(text, home_of(env)) for text in record.endpoints if text.startswith(f"{TCP}://")]
    if not named:
        return [], ""
    from .tcp_addresses import candidates

    found = [address for endpoint in named for address in candidates(endpoint)]
    return found, record.token


def _listener_wanted(files: StateFiles) -> bool:
    """Whether the palace's broker listens on TCP when it runs: it has made a token."""
    from ..system.token_file import token_path

    return os.path.exists(token_path(files.root))


def named_ssh(endpoint: Endpoint, env: Mapping[str, str], deadline: Deadline, policy: StartPolicy) -> SshRoute:
    """$MEMPALACE_BROKER=ssh://...: that host, with the ssh settings of this environment."""
    from .ssh import SshRoute

    target = _target(str(endpoint), PrivateSettings.read(env).container(env), env)
    assert target is not None, "a host was given"
    return SshRoute(target, deadline, policy, env=env)


def named_tcp(endpoint: Endpoint, context: Context, deadline: Deadline) -> TcpRoute:
    """$MEMPALACE_BROKER=tcp://...: the token comes from a file, or from the state root if we see it.

    Raises:
        BrokerUnavailable: there is no token.
    """
    from .tcp import TcpRoute
    from .tcp_token import find_token

    token = find_token(context)
    if not token:
        raise BrokerUnavailable(
            f"{endpoint} needs the broker's token, and there is none in {context.files.root}.",
            hint="on the broker's machine run `mempalace-broker token`, save it here in a file that only you can "
            "read, and name that in MEMPALACE_BROKER_TOKEN_FILE",
        )
    return TcpRoute(endpoint, token, deadline)

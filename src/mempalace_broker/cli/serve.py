"""`run` and `ensure`: a broker in the foreground, or one that is simply there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import EXIT_HELD
from ..settings import check_tcp
from .outcome import say_error
from .target import palace_options, root_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..system.context import Context

TCP_VARIABLE = "MEMPALACE_BROKER_TCP"
START_S = 60.0
HELLO_S = 10.0


TCP_OPTION = click.option(
    "--tcp",
    metavar="NAME",
    help="Listen on TCP as well: docker, an address, an interface, or any. Default: the setting tcp.",
)


@click.command("run", short_help="Run the broker in this terminal.")
@TCP_OPTION
@palace_options
def command_run(target: Context, tcp: str | None) -> int:
    """Run the broker in this terminal, its log on stderr as well.

    For service managers and for watching it work; agents need it not, their mp-shim starts one in the
    background. Ctrl-C lets running calls finish, a second Ctrl-C ends at once.

    \b
    Example:
      mempalace-broker run --palace ~/work/palace
      mempalace-broker run --tcp docker

    \b
    Exit codes: 0 after an orderly end, 75 another broker owns this palace, 73 its files
    can't be placed, 78 broker.toml, a variable or --tcp makes no sense.
    """
    from ..broker.daemon import main as daemon
    from ..route.ask import ask_broker
    from ..route.start import broker_argv
    from ..system.clock import Deadline

    other = ask_broker(target, "broker/status", {}, Deadline.after(target.clock, HELLO_S)).answer
    if other is not None:  # a politer word than the daemon's, which decides by the lock
        pid = other.get("broker", {}).get("pid")
        say_error(f"a broker runs already for {target.identity.path} (pid {pid}).", "mempalace-broker stop")
        return EXIT_HELD
    os.environ.update(_with_tcp({}, tcp))  # the daemon runs in this very process
    argv = broker_argv(target.identity, target.files, started_by="mempalace-broker run")
    os.chdir("/")  # as the one in the background: nothing may depend on where it was started
    return daemon([*argv[argv.index("--palace") :], "--foreground"])


@click.command("ensure", short_help="Start the broker if need be; print its endpoint as JSON.")
@TCP_OPTION
@click.option("--json", "_json", is_flag=True, expose_value=False, help="Accepted; the output is always JSON.")
@root_option
def command_ensure(target: Context, tcp: str | None) -> int:
    """See to it that a broker runs, and print where it listens as one line of JSON.

    Starts one if there is none, in the background, and waits until it listens. It can be called any number
    of times, from any number of places at once: there is one broker afterwards. Scripts and containers use
    it (`ssh host mempalace-broker ensure`).

    \b
    Example:
      mempalace-broker ensure
      {"endpoint": "unix:/home/me/.mempalace/broker.sock", "pid": 4711, ...}

    \b
    Exit codes: 0 it runs, 69 it could not be started, 73 its files can't be placed,
    75 a broker of another palace or version answers, or one that was started with another --tcp,
    78 --tcp makes no sense.
    """
    found = ensure(target.replace(env=_with_tcp(target.env, tcp)))
    told = _check_tcp(target, tcp) if tcp else None
    click.echo(json.dumps({**found, "tcp": (told or {}).get("endpoint") or _tcp_endpoint(target)}))
    return 0


def _with_tcp(env: Mapping[str, str], tcp: str | None) -> dict[str, str]:
    """The environment in which a broker listens there. Raises UsageError."""
    return dict(env) if tcp is None else {**env, TCP_VARIABLE: check_tcp(tcp, "--tcp")}


def _check_tcp(target: Context, tcp: str) -> dict[str, Any]:
    """Whether the broker that serves was asked for that listener, and has it.

    Raises:
        HandshakeRefused: it was not.
    """
    from ..errors import HandshakeRefused
    from ..route.ask import ask_broker
    from ..system.clock import Deadline

    said = ask_broker(target, "broker/status", {}, Deadline.after(target.clock, HELLO_S)).answer or {}
    told: dict[str, Any] = said.get("tcp") or {}
    if told.get("asked") != check_tcp(tcp, "--tcp"):
        has = f"with tcp = {told['asked']}" if told.get("asked") else "without TCP"
        raise HandshakeRefused(
            f"the broker that runs was started {has}, not {tcp}.",
            hint=f'put tcp = "{tcp}" under [broker] in {target.files.toml}, then `mempalace-broker restart`',
        )
    if not told.get("endpoint"):
        for entry in said.get("degraded") or []:
            if "TCP" in entry.get("what", ""):
                say_error(f"{entry['what']}.", entry.get("hint", ""))
    return told


def _tcp_endpoint(target: Context) -> str | None:
    """Where the broker of the record listens on TCP."""
    from ..protocol.record import DiscoveryRecord
    from ..system.record_file import RecordFile

    record = RecordFile(target.files.record).read()
    found = record.endpoints if isinstance(record, DiscoveryRecord) else []
    return next((endpoint for endpoint in found if endpoint.startswith("tcp://")), None)


def ensure(target: Context) -> dict[str, Any]:
    """Find or start the broker, say hello, and tell what it said.

    Raises:
        BrokerUnavailable, HandshakeRefused, StateRootError: as the connector and the broker say.
    """
    from ..errors import BrokerUnavailable
    from ..locality.view import view_of
    from ..protocol.hello import HELLO, hello_request
    from ..route.ask import ask
    from ..route.attempt import StartPolicy
    from ..route.finder import RouteFinder
    from ..system.clock import Deadline

    started_by = f"mempalace-broker ensure {__version__} pid {os.getpid()}"
    policy = StartPolicy(started_by=started_by, heed_failures=False)  # a person may have fixed the cause
    found = RouteFinder(target, Deadline.after(target.clock, START_S), policy).run()
    hello = hello_request(
        session=os.urandom(16).hex(),
        connection=1,
        identity=target.identity,
        client=f"mempalace-broker {__version__}",
        pid=os.getpid(),
        view=view_of(target.identity.path, remote=found.remote),
    )
    said = ask(found.sock, found.endpoint, HELLO, hello["params"], Deadline.after(target.clock, HELLO_S))
    if said.answer is None:
        raise BrokerUnavailable(f"{said.why}.", hint="`mempalace-broker stop --now`, then try again")
    welcome = said.answer
    return {
        "endpoint": found.endpoint if found.remote else f"unix:{found.endpoint}",
        **{name: welcome.get(name) for name in ("pid", "record", "broker", "wire", "palace", "notice")},
        "started": found.started,
        "log": target.files.log,
    }

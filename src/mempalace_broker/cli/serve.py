"""`run` and `ensure`: run a broker in the foreground, or make sure that one runs in the background."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import EXIT_HELD
from ..settings import check_tcp
from .context_options import palace_options, root_option
from .outcome import say_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..route.ask import BrokerReply
    from ..route.attempt import Connected
    from ..system.paths import Context

TCP_VARIABLE = "MEMPALACE_BROKER_TCP"
START_S = 60.0
HELLO_S = 10.0
STANDBY_S = 2.0  # `restart`, which ends one broker and starts the next, comes first
TRIES = 3


TCP_OPTION = click.option(
    "--tcp",
    metavar="NAME",
    help="Listen on TCP as well: docker, an address, an interface, or any. Default: the setting tcp.",
)


@click.command("run", short_help="Run the broker in this terminal.")
@TCP_OPTION
@click.option("--standby", is_flag=True, help="Where another broker runs, wait until it is gone instead of giving up.")
@palace_options
def command_run(context: Context, tcp: str | None, standby: bool) -> int:
    """Run the broker in this terminal, with its log on stderr as well.

    For service managers, and to watch it work. Agents don't need it: their mp-shim starts a broker in the background.
    Ctrl-C lets running calls finish, a second Ctrl-C ends it at once.

    \b
    Example:
      mempalace-broker run --palace ~/work/palace
      mempalace-broker run --tcp docker
      mempalace-broker run --standby      as a service, beside brokers that agents start

    \b
    Exit codes: 0 after an orderly end, 75 another broker owns this palace, 73 its files
    can't be placed, 78 config.toml, a variable or --tcp is invalid.
    """
    from ..broker.daemon import main as daemon
    from ..route.ask import ask_broker
    from ..route.start import broker_argv
    from ..system.clock import Deadline

    if not standby:
        other = ask_broker(context, "broker/status", {}, Deadline.after(context.clock, HELLO_S)).answer
        if other is not None:  # a clearer message than the daemon's, which decides by the lock
            pid = other.get("broker", {}).get("pid")
            say_error(f"a broker runs already for {context.identity.path} (pid {pid}).", "mempalace-broker stop")
            return EXIT_HELD
    os.environ.update(_with_tcp({}, tcp))  # the daemon runs in this very process
    argv = broker_argv(context.identity, context.files, started_by="mempalace-broker run")
    os.chdir("/")  # as the one in the background: nothing may depend on where it was started
    if standby:
        _stand_by(context)
    return daemon([*argv[argv.index("--palace") :], "--foreground"])


def _stand_by(context: Context) -> None:
    """Return once no broker owns the palace. It costs nothing meanwhile: the kernel wakes us."""
    from ..system.lock import is_held, wait_until_free

    while is_held(context.files.owner_lock):
        click.echo("mempalace-broker: another broker owns this palace; standing by.", err=True)
        wait_until_free(context.files.owner_lock)
        context.clock.sleep(STANDBY_S)


@click.command("ensure", short_help="Start the broker if there is none; print its endpoint as JSON.")
@TCP_OPTION
@click.option("--json", "_json", is_flag=True, expose_value=False, help="Accepted; the output is always JSON.")
@root_option
def command_ensure(context: Context, tcp: str | None) -> int:
    """Make sure that a broker runs, and print where it listens as one line of JSON.

    Starts a broker in the background if there is none, and waits until it listens. However many processes call it
    at once, there is one broker afterwards. For scripts and containers (`ssh host mempalace-broker ensure`).

    \b
    Example:
      mempalace-broker ensure
      {"endpoint": "unix:/home/me/.mempalace/broker.sock", "pid": 4711, ...}

    \b
    Exit codes: 0 it runs, 69 it could not be started, 73 its files can't be placed,
    75 a broker of another palace or version answers, or one that was started with another --tcp,
    78 --tcp is invalid.
    """
    found = ensure(context.replace(env=_with_tcp(context.env, tcp)))
    told = _check_tcp(context, tcp) if tcp else None
    click.echo(json.dumps({**found, "tcp": (told or {}).get("endpoint") or tcp_endpoint(context)}))
    return 0


def _with_tcp(env: Mapping[str, str], tcp: str | None) -> dict[str, str]:
    """The environment in which a broker listens there. Raises UsageError."""
    return dict(env) if tcp is None else {**env, TCP_VARIABLE: check_tcp(tcp, "--tcp")}


def _check_tcp(context: Context, tcp: str) -> dict[str, Any]:
    """What the running broker says about that listener.

    Raises:
        HandshakeRefused: it was not started with that listener.
    """
    from ..errors import HandshakeRefused
    from ..route.ask import ask_broker
    from ..settings_files import settings_path
    from ..system.clock import Deadline

    said = ask_broker(context, "broker/status", {}, Deadline.after(context.clock, HELLO_S)).answer or {}
    told: dict[str, Any] = said.get("tcp") or {}
    if told.get("asked") != check_tcp(tcp, "--tcp"):
        has = f"with tcp = {told['asked']}" if told.get("asked") else "without TCP"
        raise HandshakeRefused(
            f"the broker that runs was started {has}, not {tcp}.",
            hint=f'put tcp = "{tcp}" under [broker] in {settings_path(context.env)}, then `mempalace-broker restart`',
        )
    if not told.get("endpoint"):
        for entry in said.get("degraded") or []:
            if "TCP" in entry.get("what", ""):
                say_error(f"{entry['what']}.", entry.get("hint", ""))
    return told


def tcp_endpoint(context: Context) -> str | None:
    """Where the broker of the record listens on TCP."""
    from ..protocol.record import DiscoveryRecord
    from ..system.record_file import RecordFile

    record = RecordFile(context.files.record).read()
    found = record.endpoints if isinstance(record, DiscoveryRecord) else []
    return next((endpoint for endpoint in found if endpoint.startswith("tcp://")), None)


def ensure(context: Context) -> dict[str, Any]:
    """Find or start the broker, say hello, and return its welcome.

    Raises:
        BrokerUnavailable, HandshakeRefused, StateRootError: as the route and the broker say.
    """
    from ..errors import BrokerUnavailable

    for _ in range(TRIES):
        found, said = _greet(context)
        if not said.broke_off:  # a broker that was just killed, or leaves, may still have accepted
            break
    if said.answer is None:
        raise BrokerUnavailable(f"{said.why}.", hint="`mempalace-broker stop --now`, then try again")
    welcome = said.answer
    return {
        "endpoint": found.endpoint if found.remote else f"unix:{found.endpoint}",
        **{name: welcome.get(name) for name in ("pid", "record", "broker", "wire", "palace", "notice")},
        "started": found.started,
        "log": context.files.log,
    }


def _greet(context: Context) -> tuple[Connected, BrokerReply]:
    """Find or start a broker, and what it said to our hello."""
    from ..protocol.hello import HELLO, hello_request
    from ..route.ask import ask
    from ..route.attempt import StartPolicy
    from ..route.finder import RouteFinder
    from ..system.clock import Deadline

    started_by = f"mempalace-broker ensure {__version__} pid {os.getpid()}"
    policy = StartPolicy(started_by=started_by, heed_failures=False)  # a person may have fixed the cause
    finder = RouteFinder(context, Deadline.after(context.clock, START_S), policy)
    found = finder.run()
    hello = hello_request(
        session=os.urandom(16).hex(),
        secret=os.urandom(16).hex(),
        connection=1,
        identity=context.identity,
        client=f"mempalace-broker {__version__}",
        pid=os.getpid(),
        view=finder.view(found),
    )
    return found, ask(found.sock, found.endpoint, HELLO, hello["params"], Deadline.after(context.clock, HELLO_S))

"""The command line of mp-shim. Imports nothing that the first answer does not need."""

from __future__ import annotations

import os
import sys

from ..errors import EXIT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .machine.pending_requests import BrokerLimits

TIMEOUT_VARIABLE = "MEMPALACE_MCP_TIMEOUT_MS"
READ_ONLY_VARIABLE = "MEMPALACE_MCP_READ_ONLY"
_TRUE = ("1", "true", "yes", "on")
_COLLECT_AFTER = 10_000  # new objects: a start makes half as many, and collections then find nothing, in a millisecond
_OPTIONS = ("--palace", "--backend", "--collection", "--transport")

HELP = """\
Usage: mp-shim [--palace PATH] [--backend NAME] [--collection NAME] [--transport stdio] [--read-only]

The MCP server that your coding agent starts instead of mempalace-mcp. It speaks MCP on stdin and stdout,
never opens the palace itself, and forwards all requests to the one mempalace-broker that owns the palace.
It starts that broker if none is running, and continues with the next one if the broker dies.

Change one word in your agent's configuration:

    "command": "mempalace-mcp"   ->   "command": "mp-shim"

Options, as mempalace-mcp has them:
  --palace PATH       the palace directory. Without it: $MEMPALACE_PALACE_PATH, config.json, default.
                      Give every agent the same one: --palace also selects another knowledge graph.
  --backend NAME      storage backend, if it is not mempalace's default
  --collection NAME   ignored, as mempalace-mcp does
  --read-only         neither list nor run tools that write, in this session
  --transport stdio   accepted for compatibility; mp-shim has no other
  --version, --help

Environment:
  MEMPALACE_BROKER    endpoint of a broker: unix:/path, tcp://host:port or
                      ssh://[user@]host[:port][/state-root]; no other is tried then
  MEMPALACE_BROKER_SSH_HOST  in a container or virtual machine: the machine that has the palace
  MEMPALACE_MCP_READ_ONLY    1: as --read-only
  MEMPALACE_MCP_TIMEOUT_MS   limit of a call's wait and of its run, if this shim starts the broker (60000)

Try it:       printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | mp-shim
If it fails:  mempalace-broker status, mempalace-broker doctor
Exit codes:   0 end of input, 1 nobody reads the answers, 2 wrong usage, 128+n signal n
"""


class Usage(Exception):
    """The command line is wrong; the text says how to correct it."""


def parse_args(argv: Sequence[str]) -> dict[str, str]:
    """Return the options by name without dashes; those without a value are "" where given. Raises Usage."""
    found: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            found["help"] = ""
        elif word in ("--version", "-V"):
            found["version"] = ""
        elif word == "--read-only":
            found["read-only"] = ""
        elif name not in _OPTIONS:
            raise Usage(_unknown(word))
        elif equals or rest:
            found[name[2:]] = value if equals else rest.pop(0)
        else:
            raise Usage(f"{name} needs a value.")
    transport = found.get("transport", "stdio")
    if transport != "stdio":
        raise Usage(f"--transport {transport} is not supported: mp-shim speaks stdio only. Leave the option out.")
    return found


def _unknown(word: str) -> str:
    if word.partition("=")[0] in ("--host", "--port", "--tls-cert", "--tls-key"):
        return f"{word}: mp-shim serves stdio only, not HTTP."
    return f"unknown argument {word!r}. `mp-shim --help` lists them."


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the agent is done; return the exit code."""
    try:
        options = parse_args(sys.argv[1:] if argv is None else argv)
    except Usage as exc:
        _say(2, f"mp-shim: {exc}\n")
        return EXIT_USAGE
    if "help" in options:
        return _say(1, HELP)
    if "version" in options:
        from .. import __version__

        return _say(1, f"mp-shim {__version__}\n")
    _occupy_standard_descriptors()
    _exit_on_signals()
    return _serve(options)


def entry() -> None:
    """The console script: run `main`, then exit without the interpreter's clean-up, which takes milliseconds."""
    os._exit(main())


def _serve(options: dict[str, str]) -> int:
    import gc

    gc.set_threshold(_COLLECT_AFTER)

    from .. import __version__
    from ..system.paths import home_of, on_the_wire
    from .dialer import Dialer
    from .machine.protocol import ShimProtocol
    from .pump import Pump

    client = f"mp-shim {__version__}"
    protocol = ShimProtocol(
        session=os.urandom(16).hex(),
        secret=os.urandom(16).hex(),
        client=client,
        pid=os.getpid(),
        cwd=on_the_wire(_cwd()),
        home=on_the_wire(home_of(os.environ)),
        limits=_limits(os.environ.get(TIMEOUT_VARIABLE, "")),
        read_only="read-only" in options or os.environ.get(READ_ONLY_VARIABLE, "").strip().lower() in _TRUE,
    )
    return Pump(protocol, Dialer(options, client)).run()


def _limits(timeout_ms: str) -> BrokerLimits | None:
    from .machine.pending_requests import BrokerLimits

    return BrokerLimits(int(timeout_ms) / 1000, int(timeout_ms) / 1000) if timeout_ms.isdecimal() else None


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return "/"


def _say(fd: int, text: str) -> int:
    try:
        os.write(fd, text.encode())
    except OSError:
        return 1
    return 0


def _occupy_standard_descriptors() -> None:
    """Open the missing ones of stdin, stdout and stderr, so that no socket of ours gets such a number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def _exit_on_signals() -> None:
    """Exit at once with 128+n, as a shell reports it: acknowledged writes are durable in the broker.

    The C module is used because `signal` imports enum; without it the system's default does nearly the same.
    """
    try:
        import _signal  # type: ignore[import-not-found]  # no stub
    except ImportError:  # not CPython
        return

    def exit_now(number: int, _frame: Any) -> None:
        os._exit(128 + number)

    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        if _signal.getsignal(number) != _signal.SIG_IGN:  # nohup
            _signal.signal(number, exit_now)

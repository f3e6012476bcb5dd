"""The command line of mp-shim, and how it reaches brokers. Imports nothing that the first answer does not need."""

from __future__ import annotations

import os
import sys

from ..errors import EXIT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..protocol.palace import FileView
    from ..route.attempt import Connected
    from ..route.finder import RouteFinder
    from ..system.context import Context
    from .machine.pending_requests import BrokerLimits

ATTEMPT_S = 45.0  # one attempt to find or start a broker; the next request begins another
TIMEOUT_VARIABLE = "MEMPALACE_MCP_TIMEOUT_MS"
_CACHE_LIMIT = 16 * 1024 * 1024  # bytes
_OPTIONS = ("--palace", "--backend", "--collection", "--transport")

HELP = """\
Usage: mp-shim [--palace PATH] [--backend NAME] [--collection NAME] [--transport stdio]

The MCP server that your coding agent starts instead of mempalace-mcp. It speaks MCP on stdin and stdout,
never opens the palace itself, and forwards all requests to the one mempalace-broker that owns the palace.
It starts that broker if none is running, and continues with the next one if the broker dies.

Change one word in your agent's configuration:

    "command": "mempalace-mcp"   ->   "command": "mp-shim"

Options, as mempalace-mcp has them:
  --palace PATH       the palace directory. Without it: $MEMPALACE_PALACE_PATH, config.json, default.
                      Give every agent the same one: --palace also selects another knowledge graph.
  --backend NAME      storage backend, if it is not mempalace's default
  --collection NAME   collection, if it is not mempalace's default
  --transport stdio   accepted for compatibility; mp-shim has no other
  --version, --help

Environment:
  MEMPALACE_BROKER    endpoint of a broker: unix:/path, tcp://host:port or
                      ssh://[user@]host[:port][/state-root]; no other is tried then
  MEMPALACE_BROKER_SSH_HOST  in a container or virtual machine: the machine that has the palace
  MEMPALACE_MCP_TIMEOUT_MS   limit of a call's wait and of its run, if this shim starts the broker (60000)

Try it:       printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | mp-shim
If it fails:  mempalace-broker status, mempalace-broker doctor
Exit codes:   0 end of input, 1 nobody reads the answers, 2 wrong usage, 128+n signal n
"""


class Usage(Exception):
    """The command line is wrong; the text says how to correct it."""


def parse_args(argv: Sequence[str]) -> dict[str, str]:
    """Return the options by name without dashes; `help` and `version` are "" where given. Raises Usage."""
    found: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            found["help"] = ""
        elif word in ("--version", "-V"):
            found["version"] = ""
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
    if word == "--read-only":
        return "--read-only is not supported: sessions share one broker, which serves all tools."
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
    from .. import __version__
    from .machine.protocol import ShimProtocol
    from .pump import Pump

    client = f"mp-shim {__version__}"
    protocol = ShimProtocol(
        session=os.urandom(16).hex(),
        secret=os.urandom(16).hex(),
        client=client,
        pid=os.getpid(),
        cwd=_cwd(),
        home=os.environ.get("HOME") or os.path.expanduser("~"),
        limits=_limits(os.environ.get(TIMEOUT_VARIABLE, "")),
    )
    return Pump(protocol, Dialer(options, client)).run()


def _limits(timeout_ms: str) -> BrokerLimits | None:
    from .machine.pending_requests import BrokerLimits

    return BrokerLimits(int(timeout_ms) / 1000, int(timeout_ms) / 1000) if timeout_ms.isdecimal() else None


class Dialer:
    """Dials the brokers of one palace, one after another.

    Args:
        options: the command line's, by name.
        client: the shim's name and version.

    Attributes:
        context: the palace and its files, once `dial` has resolved them.
    """

    def __init__(self, options: dict[str, str], client: str) -> None:
        self._options = options
        self._started_by = f"{client} pid {os.getpid()}"
        self._finder: RouteFinder | None = None
        self._found: Connected | None = None
        self.context: Context | None = None

    def dial(self) -> RouteFinder:
        """Begin an attempt. Raises BrokerError where the palace can't be resolved; the next one may succeed."""
        from ..route.attempt import StartPolicy
        from ..route.finder import RouteFinder
        from ..system.clock import Deadline
        from ..system.context import Context
        from ..system.paths import home_of, resolve_palace

        env, given = os.environ, self._options.get
        identity = resolve_palace(given("palace"), env, home_of(env), given("backend"), given("collection"))
        self.context = context = Context(identity, env)
        deadline = Deadline.after(context.clock, ATTEMPT_S)
        self._finder = RouteFinder(context, deadline, StartPolicy(started_by=self._started_by))
        return self._finder

    def view(self, found: Connected) -> FileView:
        """The attempt succeeded: how this side sees the files, for hello on that connection."""
        assert self._finder is not None, "an attempt comes first"
        self._found = found
        return self._finder.view(found)

    def verify_palace(self, welcome: Mapping[str, Any]) -> str:
        """Why the broker that sent `welcome` is not the one of our palace; "" if it is."""
        assert self._finder is not None, "an attempt comes first"
        assert self._found is not None, "a connection comes first"
        return self._finder.verify_palace(self._found, welcome)

    def translate_paths(self, paths: list[str], files: Mapping[str, Any]) -> dict[str, str | None]:
        """The broker's names for our paths, None where there is none. Raises BrokerError where the settings are wrong.

        Args:
            paths: absolute.
            files: what the broker's welcome says of its files.
        """
        from ..route.translate import prove, translate

        assert self.context is not None, "an attempt comes first"
        names = {path: translate(self.context, path, files) for path in paths}
        for path in paths:
            prove(path, files.get("proof"))
        return names

    def read_answers(self) -> bytes | None:
        """The broker's cache of constant answers, None if there is none."""
        try:
            return self.context.files.answers.read(_CACHE_LIMIT) if self.context is not None else None
        except OSError:
            return None


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

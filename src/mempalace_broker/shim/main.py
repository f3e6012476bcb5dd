"""mp-shim's command line and first steps. Imports nothing that the first answer does not need."""

from __future__ import annotations

import os
import sys

from ..errors import EXIT_USAGE, BrokerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..route.finder import RouteFinder
    from ..system.context import Context
    from .machine.protocol import ShimProtocol

ATTEMPT_S = 45.0  # one attempt to find or start a broker; the next request begins another
TIMEOUT_VARIABLE = "MEMPALACE_MCP_TIMEOUT_MS"
_CACHE_LIMIT = 16 * 1024 * 1024
_VALUES = ("--palace", "--backend", "--collection", "--transport")

HELP = """\
Usage: mp-shim [--palace PATH] [--backend NAME] [--collection NAME] [--transport stdio]

The MCP server that your coding agent starts instead of mempalace-mcp. It speaks MCP on stdin and stdout,
never opens the palace itself, and passes everything on to the one mempalace-broker that owns the palace;
it starts that broker if none is running, and goes on with the next one if it dies.

In your agent's configuration change one word:

    "command": "mempalace-mcp"   ->   "command": "mp-shim"

Options, as mempalace-mcp has them:
  --palace PATH       the palace directory. Without it: $MEMPALACE_PALACE_PATH, config.json, default.
                      Give every agent the same: --palace also chooses another knowledge graph.
  --backend NAME      storage backend, where it isn't mempalace's default
  --collection NAME   collection, where it isn't mempalace's default
  --transport stdio   accepted for compatibility; there is no other
  --version, --help

Environment:
  MEMPALACE_BROKER    endpoint of a broker: unix:/path, tcp://host:port or
                      ssh://[user@]host[:port][/state-root]; then nothing else is tried
  MEMPALACE_BROKER_SSH_HOST  in a container or virtual machine: the machine that has the palace
  MEMPALACE_MCP_TIMEOUT_MS   limit of a call's wait and of its run, if this shim starts the broker (60000)

Try it:       printf '%s\\n' '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | mp-shim
If it fails:  mempalace-broker status, mempalace-broker doctor
Exit codes:   0 end of input, 1 nobody reads the answers, 2 wrong usage, 128+n signal n
"""


class Usage(Exception):
    """The command line makes no sense; the text says what to write instead."""


def parse_args(argv: Sequence[str]) -> dict[str, str]:
    """Options by name without dashes; `help` and `version` are "" where given. Raises Usage."""
    found: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            found["help"] = ""
        elif word in ("--version", "-V"):
            found["version"] = ""
        elif name not in _VALUES:
            raise Usage(_unknown(word))
        elif equals or rest:
            found[name[2:]] = value if equals else rest.pop(0)
        else:
            raise Usage(f"{name} needs a value.")
    transport = found.get("transport", "stdio")
    if transport != "stdio":
        raise Usage(f"--transport {transport} is not for this program, it speaks stdio only: leave it out.")
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
    _leave_on_signals()
    from .pump import Pump

    dialler = _Dialler(options)
    return Pump(dialler.protocol, dialler.dial).run()


def entry() -> None:
    """The console script: `main`, then out, without the interpreter's tidying up."""
    os._exit(main())


class _Dialler:
    """Makes the relay, and a `RouteFinder` for each attempt to reach the broker of its palace."""

    def __init__(self, options: dict[str, str]) -> None:
        from .. import __version__
        from .machine.path_rewriter import PathRewriter
        from .machine.protocol import ShimProtocol

        self._options = options
        self._client = f"mp-shim {__version__}"
        self._context: Context | None = None
        self.protocol: ShimProtocol = ShimProtocol(
            session=os.urandom(16).hex(),
            client=self._client,
            pid=os.getpid(),
            rewriter=PathRewriter(_cwd(), os.environ.get("HOME") or os.path.expanduser("~"), self._translate),
            read_cache=self._read_cache,
        )
        timeout_ms = os.environ.get(TIMEOUT_VARIABLE, "")
        if timeout_ms.isdecimal():  # until a broker has told its own
            self.protocol.limits.learn({"wait_s": int(timeout_ms) / 1000, "run_s": int(timeout_ms) / 1000})

    def dial(self) -> RouteFinder:
        """One attempt. Raises BrokerError where the palace can't be resolved; that may be mended meanwhile."""
        from ..route.attempt import StartPolicy
        from ..route.finder import RouteFinder
        from ..system.clock import Deadline
        from ..system.context import Context
        from ..system.paths import home_of, resolve_palace

        env, given = os.environ, self._options.get
        identity = resolve_palace(given("palace"), env, home_of(env), given("backend"), given("collection"))
        self.protocol.connection.identity = identity
        self._context = context = Context(identity, env)
        policy = StartPolicy(started_by=f"{self._client} pid {os.getpid()}")
        return RouteFinder(context, Deadline.after(context.clock, ATTEMPT_S), policy)

    def _translate(self, told: Mapping[str, Any], path: str) -> str | None:
        """The broker's name for a path of this container."""
        from ..route.translate import translate

        assert self._context is not None, "we were welcomed"
        try:
            return translate(self._context, path, told)
        except BrokerError as exc:
            self.protocol.reconnect.notices.append(str(exc))
            return None

    def _read_cache(self) -> bytes | None:
        from ..system.atomic_files import read_bytes

        try:
            return read_bytes(self._context.files.answers, _CACHE_LIMIT) if self._context is not None else None
        except OSError:
            return None


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed under us
        return "/"


def _say(fd: int, text: str) -> int:
    try:
        os.write(fd, text.encode())
    except OSError:
        return 1
    return 0


def _occupy_standard_descriptors() -> None:
    """Where we were started without one of the three, our own sockets must not take its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def _leave_on_signals() -> None:
    """End at once with 128+n, as a shell reports it. What was acknowledged is durable in the broker.

    The C module is used because `signal` imports enum; elsewhere the system's default does nearly the same.
    """
    try:
        import _signal  # type: ignore[import-not-found]  # no stub
    except ImportError:  # not CPython
        return

    def leave(number: int, _frame: Any) -> None:
        os._exit(128 + number)

    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        if _signal.getsignal(number) != _signal.SIG_IGN:  # nohup
            _signal.signal(number, leave)

"""The command line of mp-shim. Imports nothing that the first answer does not need."""

from __future__ import annotations

import os
import sys

from ..quick_import import import_quickly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..system.hangup import Hangup
    from .machine.pending_requests import BrokerLimits

TIMEOUT_VARIABLE = "MEMPALACE_MCP_TIMEOUT_MS"
READ_ONLY_VARIABLE = "MEMPALACE_MCP_READ_ONLY"
_LONGEST_LIMIT = 12  # digits
_TRUE = ("1", "true", "yes", "on")
_COLLECT_AFTER = 10_000  # new objects: a start makes half as many, and collections then find nothing, in a millisecond
_VALUED = ("--palace", "--backend", "--transport", "--collection")
_FLAGS = ("--read-only", "--help", "--version")
_SHORT = {"-h": "--help", "-V": "--version"}
_ABBREVIATED = (  # the options of the newest mempalace-mcp
    *("--palace", "--backend", "--transport", "--read-only", "--help"),
    *("--host", "--port", "--tls-cert", "--tls-key"),
)

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
Anything else is ignored, as mempalace-mcp does, and named on stderr.

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


def parse_args(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Read the command line as mempalace-mcp does: options may be abbreviated, what it does not know is ignored.

    Returns:
        The options by name without dashes, "" for those without a value; and the words that were ignored.

    Raises:
        Usage: a value is missing, an abbreviation is ambiguous, or another transport than stdio is asked for.
    """
    found: dict[str, str] = {}
    ignored: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            ignored += rest
            break
        name, equals, value = word.partition("=")
        option = _option(name)
        if option in _FLAGS and not equals:
            found[option[2:]] = ""
        elif option in _VALUED and (equals or (rest and not _is_option(rest[0]))):
            found[option[2:]] = value if equals else rest.pop(0)
        elif option in _VALUED and option != "--collection":  # mempalace-mcp does not have that one
            raise Usage(f"{option} needs a value.")
        else:
            ignored.append(word)
    transport = found.get("transport", "stdio")
    if transport != "stdio":
        raise Usage(f"--transport {transport} is not supported: mp-shim speaks stdio only. Leave the option out.")
    return found, ignored


def _option(name: str) -> str:
    """The option that a word names or abbreviates, "" if it is none. Raises Usage."""
    name = _SHORT.get(name, name)
    if name in _FLAGS or name in _VALUED:
        return name
    matches = [option for option in _ABBREVIATED if len(name) > 2 and option.startswith(name)]
    if len(matches) > 1:
        raise Usage(f"{name} is ambiguous: it could be {' or '.join(matches)}.")
    return matches[0] if matches else ""


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and " " not in word and not word[1:].isdecimal()


def _told(ignored: list[str]) -> str:
    """What was ignored, by name: values may be secrets."""
    names = [word.partition("=")[0] for word in ignored if word.startswith("-")]
    others = len(ignored) - len(names)
    words = [f"{others} other word{'s' * (others > 1)}"] if others else []
    return f"mp-shim: ignored, as mempalace-mcp does: {', '.join([*names, *words])}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the agent is done; return the exit code."""
    try:
        options, ignored = parse_args(sys.argv[1:] if argv is None else argv)
    except Usage as exc:
        from ..errors import EXIT_USAGE

        _say(2, f"mp-shim: {exc}\n")
        return EXIT_USAGE
    if ignored:
        _say(2, _told(ignored))
    if "help" in options:
        return _say(1, HELP)
    if "version" in options:
        from .. import __version__

        return _say(1, f"mp-shim {__version__}\n")
    return _serve(options)


def entry() -> None:
    """The console script: run `main`, then exit without the interpreter's clean-up, which takes milliseconds.

    Signals end it at once: acknowledged writes are durable in the broker.
    """
    import_quickly()

    from ..system.startup import HANGUP, INTERRUPT, TERMINATE, exit_on, occupy_standard_descriptors, use_utf8

    exit_on(HANGUP, INTERRUPT, TERMINATE)
    use_utf8()
    occupy_standard_descriptors()
    os._exit(main())


def _serve(options: dict[str, str]) -> int:
    import gc

    gc.set_threshold(_COLLECT_AFTER)

    from .. import __version__
    from ..system import kernel
    from ..system.paths import home_of
    from .dialer import Dialer
    from .machine.protocol import ShimProtocol
    from .pump import Pump

    client = f"mp-shim {__version__}"
    protocol = ShimProtocol(
        session=os.urandom(16).hex(),
        secret=os.urandom(16).hex(),
        client=client,
        pid=os.getpid(),
        cwd=_cwd(),
        home=home_of(os.environ),
        limits=_limits(os.environ.get(TIMEOUT_VARIABLE, "")),
        read_only="read-only" in options or os.environ.get(READ_ONLY_VARIABLE, "").strip().lower() in _TRUE,
    )
    hangup: type[Hangup] | None = None
    if kernel.MACOS:
        from ..system.hangup import Hangup

        hangup = Hangup
    return Pump(protocol, Dialer(options, client), hangup).run()


def _limits(timeout_ms: str) -> BrokerLimits | None:
    from .machine.pending_requests import BrokerLimits

    if not timeout_ms.isdecimal() or len(timeout_ms) > _LONGEST_LIMIT:
        return None
    return BrokerLimits(int(timeout_ms) / 1000, int(timeout_ms) / 1000)


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return "/"


def _say(fd: int, text: str) -> int:
    try:
        os.write(fd, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return 1
    return 0

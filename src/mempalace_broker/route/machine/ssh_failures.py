"""What ssh's exit status and last words mean, and what helps. Pure.

Read in OpenSSH 9.2 and 10.0 (ssh.c, sshconnect.c, mux.c, channels.c). Of a message only the part is matched that has
stayed the same for many years.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from ...protocol.jsonrpc import load


class FailureKind(StrEnum):
    """What went wrong with an ssh command."""

    HOST_KEY_CHANGED = "host key changed"
    HOST_KEY_UNKNOWN = "host key unknown"
    UNKNOWN_HOST = "unknown host"
    AUTH_REFUSED = "auth refused"
    REFUSED = "connection refused"
    UNREACHABLE = "unreachable"
    BROKEN = "connection broken"
    SILENT = "silent"
    CONFIG = "config"
    FORWARD_REFUSED = "forwarding refused"
    NOT_FOUND = "command not found"
    REMOTE = "the command failed"
    NO_SSH = "no ssh here"
    OTHER = "other"


# worth another try soon: sshd restarts, laptops wake
TRANSIENT = frozenset((FailureKind.REFUSED, FailureKind.UNREACHABLE, FailureKind.BROKEN, FailureKind.SILENT))

SSH_FAILED = 255  # ssh's own exit status; all others are the remote command's
COMMAND_NOT_FOUND = 127
_CSH_NOT_FOUND = 1
_MAX_WORDS = 500
_COMMAND = "mempalace-broker:"  # how the command's own errors begin
_HINT = " Hint: "

# In this order: one message of ssh may quote another.
_SIGNS = (
    (
        FailureKind.HOST_KEY_CHANGED,
        ("remote host identification has changed", "has changed and you have requested strict"),
    ),
    (FailureKind.HOST_KEY_UNKNOWN, ("host key verification failed", "host key is known for")),
    (FailureKind.UNKNOWN_HOST, ("could not resolve hostname",)),
    (
        FailureKind.AUTH_REFUSED,
        ("permission denied (", "too many authentication failures", "no supported authentication"),
    ),
    (
        FailureKind.CONFIG,
        ("bad configuration option", "can't open user config file", "bad owner or permissions", "terminating,"),
    ),
    (FailureKind.REFUSED, ("connection refused",)),
    (
        FailureKind.UNREACHABLE,
        ("no route to host", "network is unreachable", "connection timed out", "operation timed out"),
    ),
    (
        FailureKind.FORWARD_REFUSED,
        ("administratively prohibited", "forwarding failed", "request failed", "open failed"),
    ),
    (
        FailureKind.BROKEN,
        (
            "connection closed by",
            "connection reset by",
            "kex_exchange_identification",
            "banner exchange",
            "broken pipe",
            "not responding",
            "closed by remote host",
            "lost connection",
        ),
    ),
)


class SshHost(NamedTuple):
    """The host in words. `ssh`: how a person gets there ("ssh -F cfg host"). `command`: the program there."""

    name: str
    ssh: str
    command: str
    config: str = ""


class SshFailure(NamedTuple):
    """Its kind, whole sentences about it, and the step that helps ("" where none is known)."""

    kind: FailureKind
    message: str
    hint: str

    @property
    def transient(self) -> bool:
        """Whether the same may work in a moment."""
        return self.kind in TRANSIENT


def kind_of(status: int | None, words: str) -> FailureKind:
    """Classify the end of an ssh command.

    Args:
        status: its exit status; None: it did not end in time and we killed it.
        words: its stderr.
    """
    if status is None:
        return FailureKind.SILENT
    if status > 0 and status != SSH_FAILED:
        missing = status == COMMAND_NOT_FOUND or (status == _CSH_NOT_FOUND and _csh_found_nothing(words))
        return FailureKind.NOT_FOUND if missing else FailureKind.REMOTE
    low = words.lower()
    for kind, signs in _SIGNS:
        if any(sign in low for sign in signs):
            return kind
    return FailureKind.OTHER


def _csh_found_nothing(words: str) -> bool:
    return any(line.endswith(": Command not found.") for line in words.splitlines())


def explain(step: str, host: SshHost, status: int | None, words: str) -> SshFailure:
    """Say what was tried, what ssh or the command replied, and what helps.

    Args:
        step: what was tried, as "start the broker there". status, words: as `kind_of` takes them.
    """
    kind = kind_of(status, words)
    command, hint = _own_words(words)
    if kind == FailureKind.REMOTE and command:
        hint = f"on {host.name}: {hint}" if hint else f"look at `mempalace-broker status` on {host.name}."
        return SshFailure(kind, f"ssh reached {host.name}, but could not {step}: {command}", hint)
    said = last_words(words, kind) or (f"exit status {status}" if status is not None else "no answer in time")
    message = f"could not {step} over ssh ({host.ssh}): {said.rstrip('.')}."
    return SshFailure(kind, message, _hint(kind, host))


def no_ssh(host: SshHost, words: str) -> SshFailure:
    """There is no ssh to run."""
    return SshFailure(
        FailureKind.NO_SSH, f"could not run {host.ssh}: {words}.", "install OpenSSH's client (openssh-client)."
    )


def _own_words(words: str) -> tuple[str, str]:
    """The command's own error as (message, hint); ("", "") where the words come from elsewhere."""
    for line in reversed(words.splitlines()):
        if line.startswith(_COMMAND):
            message, _, hint = line.removeprefix(_COMMAND).strip().partition(_HINT)
            return message, hint
    return "", ""


def last_words(words: str, kind: FailureKind = FailureKind.OTHER) -> str:
    """The last lines of stderr, on one line, without decoration."""
    lines = [" ".join(line.split()) for line in words.splitlines()]
    lines = [line for line in lines if any(c.isalnum() for c in line)]
    if kind == FailureKind.HOST_KEY_CHANGED:
        wanted = ("identification has changed", "offending", "host key for", "verification failed")
        lines = [line.strip("@ ") for line in lines if any(word in line.lower() for word in wanted)]
    return "; ".join(lines[-4:])[-_MAX_WORDS:]


def _hint(kind: FailureKind, host: SshHost) -> str:
    test = f"`{host.ssh} true` in a terminal"
    config = host.config or "your ssh configuration"
    hints = {
        FailureKind.HOST_KEY_CHANGED: f"find out why before you connect; if {host.name} was set up anew, remove the "
        f"offending line from known_hosts and run {test}.",
        FailureKind.HOST_KEY_UNKNOWN: f"run {test}, compare the fingerprint, and accept it.",
        FailureKind.UNKNOWN_HOST: "correct the host: MEMPALACE_BROKER_SSH_HOST, ssh_host in broker.toml, or HostName "
        f"in {config}.",
        FailureKind.AUTH_REFUSED: f"make {test} work without a question: put this machine's key into authorized_keys "
        f"on {host.name}, or log in once with ControlMaster and ControlPersist set, and leave that connection open.",
        FailureKind.REFUSED: f"start sshd on {host.name} (macOS: System Settings, Sharing, Remote Login), or correct "
        "the port.",
        FailureKind.UNREACHABLE: f"make sure that {host.name} is on and reachable; test with {test}.",
        FailureKind.BROKEN: f"test with {test}; look at the log of sshd on {host.name}.",
        FailureKind.SILENT: f"test with {test}; if a ControlMaster is frozen, end it: `{host.ssh} -O exit`.",
        FailureKind.CONFIG: f"correct {config}, or name another with MEMPALACE_BROKER_SSH_CONFIG.",
        FailureKind.FORWARD_REFUSED: f"allow AllowStreamLocalForwarding, or the command `{host.command} dial-stdio`, "
        f"for this key on {host.name}.",
        FailureKind.NOT_FOUND: f"install mempalace-broker on {host.name} with uv, pipx or pip, or give its full path "
        "there: MEMPALACE_BROKER_SSH_COMMAND, or ssh_command in config.toml.",
    }
    return hints.get(kind, f"test with {test}.")


class EnsureReply(NamedTuple):
    """The output of `ensure` on the host: the socket's path there, and whether it has just started the broker."""

    path: str
    started: bool
    record: str
    broker: str


def read_ensure(output: bytes) -> EnsureReply | None:
    """Find the line of JSON in the output of `mempalace-broker ensure`; a shell's profile may have printed before it.

    None: no line names a unix socket.
    """
    for line in reversed(output.split(b"\n")):
        start = line.find(b'{"endpoint"')
        if start < 0:
            continue
        try:
            said: Any = load(line[start:])
        except ValueError:
            continue
        endpoint = said.get("endpoint")
        if isinstance(endpoint, str) and endpoint.startswith("unix:/"):
            return EnsureReply(
                endpoint.removeprefix("unix:"),
                said.get("started") is True,
                str(said.get("record") or ""),
                str(said.get("broker") or ""),
            )
    return None

"""What ssh's exit status and last words mean, and what mends it. Pure.

Read in OpenSSH 9.2 and 10.0 (ssh.c, sshconnect.c, mux.c, channels.c); of a message only the part that has stayed the
same for many years is looked for.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

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

TRANSIENT = frozenset((REFUSED, UNREACHABLE, BROKEN, SILENT))  # worth another try soon: sshd restarts, laptops wake

SSH_FAILED = 255  # ssh's own exit status; all others are the remote command's
COMMAND_NOT_FOUND = 127
_MAX_WORDS = 500
_COMMAND = "mempalace-broker:"  # how the command's own errors begin
_HINT = " Hint: "

# In this order: what stands in one message of ssh may be quoted in another.
_SIGNS = (
    (HOST_KEY_CHANGED, ("remote host identification has changed", "has changed and you have requested strict")),
    (HOST_KEY_UNKNOWN, ("host key verification failed", "host key is known for")),
    (UNKNOWN_HOST, ("could not resolve hostname",)),
    (AUTH_REFUSED, ("permission denied (", "too many authentication failures", "no supported authentication")),
    (CONFIG, ("bad configuration option", "can't open user config file", "bad owner or permissions", "terminating,")),
    (REFUSED, ("connection refused",)),
    (UNREACHABLE, ("no route to host", "network is unreachable", "connection timed out", "operation timed out")),
    (FORWARD_REFUSED, ("administratively prohibited", "forwarding failed", "request failed", "open failed")),
    (
        BROKEN,
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


class Place(NamedTuple):
    """Words for where we went. `ssh`: how a person gets there ("ssh -F cfg host"). `command`: what runs there."""

    host: str
    ssh: str
    command: str
    config: str = ""


class Trouble(NamedTuple):
    """What went wrong: its kind, whole sentences about it, and the step that mends it ("" where none is known)."""

    kind: str
    message: str
    hint: str

    @property
    def transient(self) -> bool:
        """Whether the same may work in a moment."""
        return self.kind in TRANSIENT


def kind_of(status: int | None, words: str) -> str:
    """Classify the end of an ssh command.

    Args:
        status: its exit status; None: it did not end in time and was ended by us.
        words: its stderr.
    """
    if status is None:
        return SILENT
    if status not in (SSH_FAILED, 0) and status > 0:
        return NOT_FOUND if status == COMMAND_NOT_FOUND else REMOTE
    low = words.lower()
    for kind, signs in _SIGNS:
        if any(sign in low for sign in signs):
            return kind
    return OTHER


def explain(step: str, place: Place, status: int | None, words: str) -> Trouble:
    """Say what was tried, what ssh or the command said to it, and what helps.

    Args:
        step: what was tried, as "start the broker there". status, words: as `kind_of` takes them.
    """
    kind = kind_of(status, words)
    command, hint = _own_words(words)
    if kind == REMOTE and command:
        hint = f"on {place.host}: {hint}" if hint else f"look at `mempalace-broker status` on {place.host}."
        return Trouble(kind, f"ssh reached {place.host}, but could not {step}: {command}", hint)
    said = last_words(words, kind) or (f"exit status {status}" if status is not None else "no answer in time")
    message = f"could not {step} over ssh ({place.ssh}): {said.rstrip('.')}."
    return Trouble(kind, message, _hint(kind, place))


def no_ssh(place: Place, words: str) -> Trouble:
    """There is no ssh to run."""
    return Trouble(NO_SSH, f"could not run {place.ssh}: {words}.", "install OpenSSH's client (openssh-client).")


def _own_words(words: str) -> tuple[str, str]:
    """The command's own error as (message, hint); ("", "") where it is somebody else's."""
    for line in reversed(words.splitlines()):
        if line.startswith(_COMMAND):
            message, _, hint = line.removeprefix(_COMMAND).strip().partition(_HINT)
            return message, hint
    return "", ""


def last_words(words: str, kind: str = OTHER) -> str:
    """The end of what was said on stderr, on one line, without ornaments."""
    lines = [" ".join(line.split()) for line in words.splitlines()]
    lines = [line for line in lines if any(c.isalnum() for c in line)]
    if kind == HOST_KEY_CHANGED:
        wanted = ("identification has changed", "offending", "host key for", "verification failed")
        lines = [line.strip("@ ") for line in lines if any(word in line.lower() for word in wanted)]
    return "; ".join(lines[-4:])[-_MAX_WORDS:]


def _hint(kind: str, place: Place) -> str:
    test = f"`{place.ssh} true` in a terminal"
    config = place.config or "your ssh configuration"
    return {
        HOST_KEY_CHANGED: f"find out why before you connect; if {place.host} was set up anew, remove the offending "
        f"line from known_hosts and run {test}.",
        HOST_KEY_UNKNOWN: f"run {test}, compare the fingerprint, and accept it.",
        UNKNOWN_HOST: f"correct the host: MEMPALACE_BROKER_SSH_HOST, ssh_host in broker.toml, or HostName in {config}.",
        AUTH_REFUSED: f"make {test} work without a question: put this machine's key into authorized_keys on "
        f"{place.host}, or log in once with ControlMaster and ControlPersist set, and leave that connection open.",
        REFUSED: f"start sshd on {place.host} (macOS: System Settings, Sharing, Remote Login), or correct the port.",
        UNREACHABLE: f"see to it that {place.host} is on and reachable; test with {test}.",
        BROKEN: f"test with {test}; look at the log of sshd on {place.host}.",
        SILENT: f"test with {test}; if a ControlMaster is frozen, end it: `{place.ssh} -O exit`.",
        CONFIG: f"correct {config}, or name another with MEMPALACE_BROKER_SSH_CONFIG.",
        FORWARD_REFUSED: f"allow AllowStreamLocalForwarding, or the command `{place.command} dial-stdio`, for this key "
        f"on {place.host}.",
        NOT_FOUND: f"install mempalace-broker on {place.host}, or give its full path there: "
        "MEMPALACE_BROKER_SSH_COMMAND, or ssh_command in broker.toml.",
    }.get(kind, f"test with {test}.")


class Ensured(NamedTuple):
    """What `ensure` on the host said: the socket's path there, and whether it has just started the broker."""

    path: str
    started: bool
    record: str
    broker: str


def read_ensure(output: bytes) -> Ensured | None:
    """Find the line of JSON in what `mempalace-broker ensure` printed; a shell's profile may have printed before it.

    None: there is none that names a unix socket.
    """
    for line in reversed(output.split(b"\n")):
        start = line.find(b'{"endpoint"')
        if start < 0:
            continue
        try:
            said: Any = json.loads(line[start:])
        except ValueError:
            continue
        endpoint = said.get("endpoint")
        if isinstance(endpoint, str) and endpoint.startswith("unix:/"):
            return Ensured(
                endpoint.removeprefix("unix:"),
                said.get("started") is True,
                str(said.get("record") or ""),
                str(said.get("broker") or ""),
            )
    return None

"""The messages of OpenSSH 9.2 and 10.0, and how we classify and explain them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.route.machine.ssh_failures import FailureKind, SshHost, explain, kind_of, no_ssh, read_ensure

HOST = SshHost("mac", "ssh -F /cfg mac", "mempalace-broker", "/cfg")
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:abc.
Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/me/.ssh/known_hosts:1
Host key for mac has changed and you have requested strict checking.
Host key verification failed.
"""
ENSURED = (
    b'{"endpoint": "unix:/h/.mempalace/broker.sock", "pid": 7, "record": "ab", "broker": "0.1.0", "started": true}'
)


noise = st.binary(max_size=200) | st.sampled_from([b'{"endpoint"' + b"[" * 100_000, b'{"endpoint": 7}', b"\n"])
told = st.fixed_dictionaries(
    {"endpoint": st.sampled_from(["unix:/s", "unix:s", "tcp://h:1", ""]) | st.text() | st.integers()},
    optional={"started": st.booleans() | st.text(), "record": st.none() | st.integers(), "broker": st.text()},
).map(lambda fields: json.dumps(fields).encode())


@given(st.lists(noise | told, max_size=5))
def test_whatever_the_far_side_prints(lines: list[bytes]) -> None:
    found = read_ensure(b"\n".join(lines))
    if found is not None:
        assert found.path.startswith("/")
        assert type(found.started) is bool
        assert f'"unix:{found.path}"'.encode() in b"\n".join(lines) or "\\" in json.dumps(found.path)


@pytest.mark.parametrize(
    ("status", "words", "kind", "hint"),
    [
        (255, CHANGED, FailureKind.HOST_KEY_CHANGED, "known_hosts"),
        (255, "Host key verification failed.", FailureKind.HOST_KEY_UNKNOWN, "`ssh -F /cfg mac true`"),
        (255, "ssh: Could not resolve hostname mac: Name or service not known", FailureKind.UNKNOWN_HOST, "/cfg"),
        (255, "me@mac: Permission denied (publickey,password).", FailureKind.AUTH_REFUSED, "authorized_keys"),
        (255, "Received disconnect: Too many authentication failures", FailureKind.AUTH_REFUSED, "authorized_keys"),
        (255, "ssh: connect to host mac port 22: Connection refused", FailureKind.REFUSED, "sshd"),
        (255, "ssh: connect to host mac port 22: No route to host", FailureKind.UNREACHABLE, "reachable"),
        (255, "ssh: connect to host mac port 22: Connection timed out", FailureKind.UNREACHABLE, "reachable"),
        (255, "kex_exchange_identification: Connection closed by remote host", FailureKind.BROKEN, "log of sshd"),
        (255, "Timeout, server mac not responding.", FailureKind.BROKEN, "log of sshd"),
        (255, "Can't open user config file /cfg: No such file or directory", FailureKind.CONFIG, "SSH_CONFIG"),
        (255, "/cfg: terminating, 1 bad configuration options", FailureKind.CONFIG, "SSH_CONFIG"),
        (255, "Bad owner or permissions on /home/me/.ssh/config", FailureKind.CONFIG, "correct"),
        (
            255,
            "channel 2: open failed: administratively prohibited: x",
            FailureKind.FORWARD_REFUSED,
            "AllowStreamLocal",
        ),
        (255, "mux_client_forward: forwarding request failed: x", FailureKind.FORWARD_REFUSED, "AllowStreamLocal"),
        (127, "bash: line 1: mempalace-broker: command not found", FailureKind.NOT_FOUND, "SSH_COMMAND"),
        (127, "fish: Unknown command: mempalace-broker", FailureKind.NOT_FOUND, "uv, pipx or pip"),
        (1, "mempalace-broker: Command not found.\n", FailureKind.NOT_FOUND, "SSH_COMMAND"),  # csh
        (None, "", FailureKind.SILENT, "-O exit"),
        (255, "what nobody has ever seen", FailureKind.OTHER, "`ssh -F /cfg mac true`"),
        (255, "", FailureKind.OTHER, "`ssh -F /cfg mac true`"),
    ],
)
def test_every_failure_says_what_was_tried_and_what_helps(status: int | None, words: str, kind: str, hint: str) -> None:
    assert kind_of(status, words) == kind
    failure = explain("start the broker there", HOST, status, words)
    assert failure.kind == kind
    assert "start the broker there" in failure.message
    assert "ssh -F /cfg mac" in failure.message
    assert words.strip().splitlines()[-1:] == [] or words.strip().splitlines()[-1].rstrip(".") in failure.message
    assert hint in failure.hint
    assert "\n" not in failure.message + failure.hint


def test_a_changed_host_key_names_the_line() -> None:
    message = explain("connect", HOST, 255, CHANGED).message
    assert "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!" in message
    assert "known_hosts:1" in message
    assert "@" not in message


def test_only_what_may_pass_by_itself_is_tried_again() -> None:
    assert explain("connect", HOST, 255, "Connection refused").transient
    assert explain("connect", HOST, None, "").transient
    assert not explain("connect", HOST, 255, "Permission denied (publickey).").transient
    assert not explain("connect", HOST, 1, "anything").transient


def test_the_commands_own_error_comes_through_with_its_hint() -> None:
    words = "Welcome!\nmempalace-broker: no such palace. Hint: give --palace.\n"
    failure = explain("start the broker there", HOST, 78, words)
    assert failure.kind == FailureKind.REMOTE
    assert failure.message.endswith("no such palace.")
    assert failure.hint == "on mac: give --palace."
    assert "status" in explain("start the broker there", HOST, 1, "mempalace-broker: oh\n").hint
    assert "traceback line" in explain("start the broker there", HOST, 1, "traceback line").message


def test_what_ssh_itself_did_is_not_blamed_on_the_command() -> None:
    words = "mempalace-broker: oh"
    assert kind_of(0, words) == kind_of(-9, words) == FailureKind.OTHER
    assert kind_of(1, words) == FailureKind.REMOTE
    assert "over ssh" in explain("connect", HOST, 255, words).message
    assert "no answer in time" in explain("connect", HOST, None, "").message
    assert "exit status 255" in explain("connect", HOST, 255, "---\n").message


def test_a_machine_without_ssh() -> None:
    assert "openssh-client" in no_ssh(HOST, "No such file or directory").hint


@pytest.mark.parametrize(
    "output",
    [
        ENSURED + b"\n",
        b"Welcome!\n{}\n" + ENSURED + b"\nbye\n",
        b"no newline at the end" + ENSURED,
        b'{"endpoint": "tcp://x:1"}\n' + ENSURED + b"\n\n",
        b"\xff\xfe\n" + ENSURED,
    ],
)
def test_the_answer_of_ensure_is_found_among_noise(output: bytes) -> None:
    assert read_ensure(output) == ("/h/.mempalace/broker.sock", True, "ab", "0.1.0")


def test_an_answer_of_ensure_that_says_little() -> None:
    assert read_ensure(b'{"endpoint": "unix:/s", "started": 1}') == ("/s", False, "", "")


@pytest.mark.parametrize(
    "output", [b"", b"hello", b"{}", b'{"endpoint": 7}', b'{"endpoint"', b'{"endpoint": "unix:relative"}']
)
def test_no_answer_of_ensure(output: bytes) -> None:
    assert read_ensure(output) is None

"""connect() and what its answer means."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker.broker.unix_listener import bind_unix
from mempalace_broker.errors import BrokerUnavailable
from mempalace_broker.route import dial as dial_module
from mempalace_broker.route.dial import dial, dial_any
from mempalace_broker.route.machine.election import (
    CONNECT_DENIED,
    CONNECT_EAGAIN,
    CONNECT_ENOENT,
    CONNECT_OK,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
)
from mempalace_broker.system import unix_socket
from mempalace_broker.system.kernel import LINUX


def test_a_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        found = dial(path)
        assert (found.outcome, found.path, found.why) == (CONNECT_OK, path, "")
        sock = found.sock
        assert sock is not None
        assert sock.getblocking() is False
        assert not os.get_inheritable(sock.fileno())
        peer, _ = listener.accept()
        peer.sendall(b"hello")
        assert sock.recv(9) == b"hello"
        peer.close()
        sock.close()


def test_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert dial(str(path)).outcome == CONNECT_ENOENT
    assert dial(str(path / "below")).outcome == CONNECT_ENOENT
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert dial(str(path)).outcome == CONNECT_REFUSED
    path.unlink()
    path.touch()
    assert dial(str(path)).outcome == CONNECT_REFUSED, "a plain file"
    assert dial(str(path / "below")).outcome == CONNECT_ENOENT


def test_a_datagram_socket_of_that_name(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert dial(path).outcome == CONNECT_REFUSED


def test_a_full_backlog(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        socks = []
        while (found := dial(path)).outcome == CONNECT_OK:
            socks.append(found.sock)
        assert (found.outcome, found.sock) == (CONNECT_EAGAIN, None)
        for sock in socks:
            assert sock is not None
            sock.close()


def test_a_path_that_no_socket_can_have() -> None:
    found = dial("/" + "x" * 300)
    assert (found.outcome, found.sock) == (CONNECT_TIMEOUT, None)
    assert "too long" in found.why


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, CONNECT_DENIED),
        (errno.EINPROGRESS, CONNECT_EAGAIN),
        (errno.ENOMEM, CONNECT_TIMEOUT),
        (errno.ETIMEDOUT, CONNECT_TIMEOUT),
    ],
)
def test_other_answers(monkeypatch: pytest.MonkeyPatch, code: int, expected: str) -> None:
    class Refusing:
        def __init__(self, *args: object) -> None:
            self.closed = False

        def setblocking(self, flag: bool) -> None:
            assert flag is False

        def connect(self, path: str) -> None:
            raise OSError(code, os.strerror(code))

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(dial_module, "RawSocket", Refusing)
    found = dial("/x")
    assert (found.outcome, found.sock, found.why) == (expected, None, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.ENOSYS])
def test_a_sandbox_without_unix_sockets_is_named_at_once(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(dial_module, "RawSocket", refuse)
    with pytest.raises(BrokerUnavailable, match="may not use unix sockets") as error:
        dial("/x")
    assert "sandbox" in error.value.hint


def test_a_sandbox_that_forbids_to_connect_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(dial_module, "connect", refuse)
    with pytest.raises(BrokerUnavailable, match="may not use unix sockets"):
        dial("/x")


def test_without_a_free_descriptor_nothing_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(dial_module, "RawSocket", refuse)
    found = dial("/x")
    assert (found.outcome, found.sock, found.why) == (CONNECT_TIMEOUT, None, "Too many open files")


def test_of_several_the_one_that_accepts_else_the_strongest_sign_of_an_owner(tmp_path: Path) -> None:
    absent, dead, full = (str(tmp_path / name) for name in ("absent", "dead", "full"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(dead)
    found = dial_any([absent, dead, absent])
    assert (found.outcome, found.path, found.nobody) == (CONNECT_REFUSED, dead, True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(full)
        listener.listen(1)
        found = dial_any([absent, full, dead])
        assert (found.outcome, found.path, found.nobody) == (CONNECT_OK, full, False)
        assert found.sock is not None
        found.sock.close()


def test_a_path_of_any_length(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    listener, name = bind_unix(str(folder / "s"))
    with listener:
        assert name.intact()
        found = dial(str(folder / "s"))
        assert (found.outcome, found.why) == (CONNECT_OK, "")
        assert found.sock is not None
        found.sock.close()
        listener.accept()[0].close()
    assert dial(str(folder / "s")).outcome == CONNECT_REFUSED
    name.remove()
    assert dial(str(folder / "s")).outcome == CONNECT_ENOENT
    assert dial(str(folder / "below" / "s")).outcome == CONNECT_ENOENT


@pytest.mark.parametrize("uid", [54321, 65534])
def test_a_listener_of_another_user_is_nobody_and_hears_nothing(
    tmp_path: Path, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "s")
    monkeypatch.setattr(unix_socket, "peer_uid", lambda sock: uid)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        found = dial(path)
        assert (found.outcome, found.sock) == (CONNECT_REFUSED, None)
        assert "another user" in found.why
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1) == b""


def test_the_kernel_names_the_user_that_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen(1)
        client.connect(path)
        peer, _ = listener.accept()
        with peer:
            assert unix_socket.peer_uid(client) == unix_socket.peer_uid(peer) == os.geteuid()


@pytest.mark.parametrize("target", ["loop", "other", "missing"])
def test_a_link_is_nobodys(tmp_path: Path, target: str) -> None:
    """A container could lead us to any other socket of the user's, or keep us waiting."""
    (tmp_path / "loop").symlink_to(target)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other"))
        listener.listen(1)
        found = dial_any([str(tmp_path / "loop")])
        assert (found.outcome, found.sock, found.why) == (CONNECT_REFUSED, None, "it is a link")
        named = dial(str(tmp_path / "loop"))
        assert (named.sock is not None) == (target == "other")
        assert named.nobody or named.sock is not None
        if named.sock is not None:
            named.sock.close()


@pytest.mark.skipif(not LINUX, reason="only Linux names the process")
def test_a_socket_whose_process_has_ended_is_nobodys(tmp_path: Path) -> None:
    """A process of a container could begin to listen, hand its socket on and end: then nothing says where it was."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        code = f"import socket; socket.socket(fileno={listener.fileno()}).listen(1)"
        subprocess.run([sys.executable, "-c", code], pass_fds=[listener.fileno()], check=True)
        found = dial_any([path])
        assert (found.outcome, found.sock) == (CONNECT_REFUSED, None)
        assert "has ended" in found.why
        named = dial(path)
        assert named.sock is not None, "where the user named that socket: ssh forks once it listens"
        named.sock.close()

"""Which transport the tunnel takes, with a fake ssh; tests/net uses a real one."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.route.bridge.ssh import Ssh, TunnelError
from mempalace_broker.route.bridge.tunnel import Tunnel
from mempalace_broker.route.bridge.wire import SshTarget
from mempalace_broker.route.machine.ssh_failures import FailureKind
from mempalace_broker.system.clock import Clock
from tests.fakes import ssh as fake

PONG = b'{"jsonrpc":"2.0","id":"bridge","result":{}}\n'


class Stage:
    """A folder with a fake ssh, a broker that knows one answer, and a tunnel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[list[list[str]]] = []
        self.program = folder / "ssh"
        body = Path(fake.__file__).read_text().partition("\n")[2]
        self.program.write_text(f"#!{sys.executable} -S\n{body}")
        self.program.chmod(0o755)
        self.path = str(folder / "b.sock")
        (folder / "ensure").write_text(f'{{"endpoint": "unix:{self.path}", "started": true}}')
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        ssh = Ssh(SshTarget("host"), str(self.program))
        self.tunnel = Tunnel(ssh, str(folder), Clock(), note=self.notes.append, say=lambda _: None)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                peer, _ = self.listener.accept()
                with peer:
                    if peer.recv(1000):
                        peer.sendall(b"\nnoise\n" + PONG)

    def hears_the_broker(self) -> bool:
        """Whether a connection through the tunnel leads to the broker."""
        with self.tunnel.connect() as sock:
            sock.setblocking(True)
            sock.sendall(b"x")
            return sock.makefile("rb").read().endswith(PONG)

    def lacks(self) -> None:
        (self.folder / "lacks").touch()

    def used(self) -> list[str]:
        return (self.folder / "used").read_text().split()

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"ssh", "ensure", "used", "b.sock", "lacks"}


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("s"))
    yield made
    made.tunnel.close()
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    assert not made.files(), "nothing may be left behind"


def test_a_new_ssh_joins_sockets_where_forwarding_does_not_work(stage: Stage) -> None:
    stage.tunnel.set_up()  # the fake's forwards lead nowhere
    assert stage.tunnel.describe() == {"mode": "stdio", "over": "a connection of its own", "path": stage.path}
    assert stage.used()[:5] == ["master", "ensure", "forward", "cancel", "ensure"]
    assert stage.tunnel.started
    assert stage.hears_the_broker()


def test_a_broker_that_was_replaced_meanwhile_is_no_reason_to_take_less(stage: Stage) -> None:
    """The transport failed because that broker is gone by now: the best one is tried again with the new broker."""
    text = (stage.folder / "ensure").read_text()
    (stage.folder / "ensure").write_text(text.replace("}", ', "record": "%d"}'))  # another one each time
    with pytest.raises(TunnelError, match="brokers come and go"):
        stage.tunnel.set_up()
    assert stage.used().count("forward") == 4
    assert "stdio" not in stage.used()


def test_a_program_off_its_path_is_looked_for_once(stage: Stage) -> None:
    stage.lacks()
    stage.tunnel.set_up()
    assert stage.used()[:3] == ["master", "127", "ensure"]
    stage.tunnel.set_up()
    assert stage.used().count("127") == 1, "where it was found is remembered, for dial-stdio too"
    assert stage.hears_the_broker()


def test_a_program_that_moved_is_found_again(stage: Stage) -> None:
    stage.tunnel.set_up()
    stage.lacks()
    assert not stage.tunnel.check(again=True), "connections would still run the command that is gone"
    stage.tunnel.set_up()
    assert stage.hears_the_broker()


def test_what_works_is_kept_and_a_set_up_costs_one_question(stage: Stage) -> None:
    stage.tunnel.set_up()
    before = len(stage.used())
    assert stage.tunnel.check()
    stage.tunnel.set_up()
    assert stage.used()[before:] == ["ensure", "stdio"]


def test_what_must_be_undone_is_noted_before_it_is_done(stage: Stage) -> None:
    stage.tunnel.set_up()
    (control, spec) = stage.notes[-1][0]
    assert Path(control).exists()
    assert spec.endswith(f":{stage.path}")
    stage.tunnel.close()
    assert stage.notes[-1] == []


def test_without_any_transport_the_error_says_what_was_tried(stage: Stage) -> None:
    stage.listener.shutdown(socket.SHUT_RDWR)
    with pytest.raises(TunnelError) as caught:
        stage.tunnel.set_up()
    for word in ("forward:", "stdio:"):
        assert word in caught.value.message
    assert "dial-stdio" in caught.value.hint


def test_a_machine_without_ssh(stage: Stage) -> None:
    stage.program.unlink()
    with pytest.raises(TunnelError) as caught:
        stage.tunnel.set_up()
    assert caught.value.failure.kind is FailureKind.NO_SSH

"""Which files a guest may name: what the user named, what it has mounted, what it proves to have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.broker.guest_paths import GuestPaths, NotShared, new_nonce
from mempalace_broker.protocol.hello import PROOF_PREFIX
from mempalace_broker.route.translate import prove
from mempalace_broker.system.kernel import process_status
from mempalace_broker.system.unix_socket import PeerProcess

NOBODY = PeerProcess()
NONCE = "ab" * 16
needs_root = pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a workspace and a secret."""
    real = Path(os.path.realpath(tmp_path))
    (real / "ws" / "sub").mkdir(parents=True)
    (real / "secret").mkdir()
    (real / "ws" / "out").symlink_to(real / "secret")
    (real / "ws" / "in").symlink_to("sub")
    return real


def shared(path: Path, *, nonce: str = "", peer: PeerProcess = NOBODY, folders: tuple[Path, ...] = ()) -> str:
    """The real path, "" where the guest may not name it."""
    try:
        return GuestPaths([str(folder) for folder in folders]).real(peer, nonce, str(path))
    except NotShared:
        return ""


def test_by_default_nothing(home: Path) -> None:
    for path in (home, home / "ws", Path("/"), Path("/etc/passwd"), home / "missing"):
        assert shared(path) == ""
        assert shared(path, nonce=NONCE) == ""


def test_what_the_user_named_and_nothing_that_only_looks_like_it(home: Path) -> None:
    ws = home / "ws"
    (home / "ws2").mkdir()
    assert shared(ws, folders=(ws,)) == str(ws)
    assert shared(ws / "in", folders=(ws,)) == str(ws / "sub")
    for path in (home, home / "ws2", ws / "out", ws / "..", ws / "sub" / ".." / ".." / "secret"):
        assert shared(path, folders=(ws,)) == "", path


def test_a_folder_that_the_guest_can_write_to(home: Path) -> None:
    ws = home / "ws"
    prove(str(ws), NONCE)
    assert os.listdir(ws).count(PROOF_PREFIX + NONCE) == 1
    assert shared(ws, nonce=NONCE) == str(ws)
    assert not (ws / (PROOF_PREFIX + NONCE)).exists()
    assert shared(ws, nonce=NONCE) == "", "a proof counts once"


def test_a_proof_counts_in_its_own_folder_and_for_its_own_connection_only(home: Path) -> None:
    ws = home / "ws"
    prove(str(ws), NONCE)
    for path in (ws / "sub", ws / "out", home):
        assert shared(path, nonce=NONCE) == "", path
    prove(str(ws), NONCE)
    assert shared(ws, nonce="cd" * 16) == ""
    assert shared(ws, nonce=NONCE) == str(ws)


def test_a_link_of_that_name_proves_nothing(home: Path) -> None:
    target = home / "secret" / "key"
    target.touch()
    for make in (
        lambda name: name.symlink_to(target),
        lambda name: name.mkdir(),
        os.mkfifo,
    ):
        name = home / "ws" / (PROOF_PREFIX + NONCE)
        make(name)
        assert shared(home / "ws", nonce=NONCE) == ""
        name.rmdir() if name.is_dir() and not name.is_symlink() else name.unlink()
    assert target.exists()


def test_one_file_is_proven_beside_it(home: Path) -> None:
    file = home / "ws" / "talk.jsonl"
    file.touch()
    prove(str(file), NONCE)
    assert shared(file, nonce=NONCE) == str(file)
    prove(str(file), NONCE)
    (home / "ws" / "file").symlink_to(home / "secret" / "key")
    assert shared(home / "ws" / "file", nonce=NONCE) == ""


@pytest.mark.parametrize("nonce", ["", None, 7, "../x", "a/b", "x" * 100, "\n"])
def test_a_broker_can_not_make_a_shim_write_any_other_name(home: Path, nonce: object) -> None:
    before = os.listdir(home / "ws")
    prove(str(home / "ws"), nonce)
    assert os.listdir(home / "ws") == before


def test_nonces_are_new(home: Path) -> None:
    assert len({new_nonce(NOBODY) for _ in range(100)}) == 100


@pytest.fixture
def boxed(home: Path) -> Iterator[PeerProcess]:
    """A process in a pid and a mount namespace of its own that sees the workspace at /mnt, and nothing of the home."""
    script = (
        f"mount --bind {home}/ws /mnt && mount -t tmpfs none {home} && echo ready && exec {sys.executable} -c "
        "'import sys; sys.stdin.read()'"
    )
    argv = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pid = int(children[0])
        status = process_status(pid)
        assert status is not None
        yield PeerProcess(pid, 2, "mp-shim", status[1])
        process.stdin.close()


@needs_root
def test_what_a_container_has_mounted(home: Path, boxed: PeerProcess) -> None:
    assert shared(home / "ws", peer=boxed) == str(home / "ws")
    assert shared(home / "ws" / "in", peer=boxed) == str(home / "ws" / "sub")
    for path in (home, home / "secret", home / "ws" / "out"):
        assert shared(path, peer=boxed) == "", path
    assert new_nonce(boxed) == ""


@needs_root
def test_the_mounts_of_another_process_prove_nothing(home: Path, boxed: PeerProcess) -> None:
    """One that forwards for the guest, one of the host, one whose pid is another's by now."""
    for peer in (
        PeerProcess(boxed.pid, 2, "sshd", boxed.start),
        PeerProcess(boxed.pid, 1, "mp-shim", boxed.start),
        PeerProcess(boxed.pid, 2, "mp-shim", "1"),
        PeerProcess(os.getpid(), 1, "mp-shim", ""),
    ):
        assert shared(home / "ws", peer=peer) == ""

"""What a shim imports until it is connected: nothing that costs milliseconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from mempalace_broker.route.attempt import Connected
from mempalace_broker.route.unix import UnixRoute
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.paths import Context
from mempalace_broker.system.find_palace import resolve_palace
from mempalace_broker.system.paths import home_of
env = {"HOME": sys.argv[2]}
identity = resolve_palace(None, env, home_of(env))
found = UnixRoute(Context(identity, env), Deadline.after(Clock(), 20)).step()
assert isinstance(found, Connected), found.error
print(*sorted(sys.modules))
"""
FORBIDDEN = frozenset(
    "argparse asyncio collections contextlib dataclasses enum fcntl functools hashlib inspect json logging pathlib "  # noqa: SIM905 - words
    "random re select selectors shutil signal socket subprocess tempfile threading tomllib typing uuid".split()
) - ({"fcntl"} if sys.platform == "darwin" else frozenset())  # which tells how the palace's name is spelled


def test_the_way_to_a_running_broker(tmp_path: Path) -> None:
    import json
    import socket

    from mempalace_broker.protocol.palace import PalaceIdentity
    from mempalace_broker.protocol.record import DiscoveryRecord, encode
    from mempalace_broker.system.paths import state_files

    home = tmp_path.resolve()
    palace = home / "p"
    files = state_files(PalaceIdentity(str(palace), "", "config"), {})
    palace.mkdir()
    (home / ".mempalace").mkdir()
    (home / ".mempalace" / "config.json").write_text(json.dumps({"palace_path": str(palace)}), encoding="utf-8")
    record = DiscoveryRecord(record="ab", pid=1, endpoints=[f"unix:{files.socket}"], palace={"path": str(palace)})
    Path(files.record).write_bytes(encode(record))
    source = Path(__file__).resolve().parents[3] / "src"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(files.socket)
        listener.listen(1)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CODE, str(source), str(home)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "mempalace_broker.route.unix" in modules
    assert not modules & FORBIDDEN
    ours = {name for name in modules if name.startswith("mempalace_broker.")}
    assert not {name for name in ours if name.endswith((".start", ".spawn", ".mounts", ".process_ids", ".lock"))}

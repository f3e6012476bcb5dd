"""The devbox image, built from its Dockerfiles and run: `python3 dev.py image`.

imagebuild.py builds without an engine daemon, and has the few stand-ins. The host is this machine, and its user is
OWNER, not root. The container is a real one, with its own pid 1 and namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devbox.tests.fakemodel import FakeModel
from devbox.tests.imagebuild import AT_BRANCH, Images, companions, default_store, lacking
from devbox.tests.imagerun import COLD_S, OWNER, PI, STUDIO, Devbox
from tests.harness import World, eventually
from tests.net.sshd import Sshd, require_sshd
from tests.rpcproc import RpcError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("image")]  # one store for all
# This Python may lie in a home that only its user may enter: show it to OWNER, in a mount namespace of its own.
_OPEN_UP = f"""
set -eu
python={shlex.quote(sys.base_prefix)} home=/$(echo {shlex.quote(sys.base_prefix)} | cut -d/ -f2)
if [ -z "$(find "$home" -maxdepth 0 -perm -1)" ]; then
  mount --bind "$python" /mnt
  mount -t tmpfs -o mode=755 open "$home"
  mkdir -p "$python"
  mount --bind /mnt "$python"
fi
exec setpriv --reuid {OWNER} --regid {OWNER} --clear-groups "$@"
"""
AS_OWNER = ["unshare", "--mount", "sh", "-c", _OPEN_UP, "sh"]
PARTS = """
dot -V && magick --version && yq --version && jq --version && git --version && ssh -V && rg --version
fd --version && tmux -V && node --version && npm --version && uv --version && python3 --version
mempalace --version && editor --version && wget --version && ip -V && ss --version && grep -q search ~/.inputrc
mp-shim --version && mempalace-broker --version && dot-watch --help && studio-expose --help
"""


@pytest.fixture(scope="module")
def images() -> Images:
    """The store with base, pi and studio, newly built. MPB_IMAGE_BUILT=1 reuses the last build."""
    if lack := lacking():
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(lack)
        pytest.skip(lack)
    store = default_store()
    if os.environ.get("MPB_IMAGE_BUILT") == "1":
        store.outside()
        return store
    store.build_base()
    store.build_variant("pi")
    store.build_variant("studio")
    return store


@pytest.fixture
def engine() -> str:
    """The version that the image pins."""
    from tests import harness

    harness.require_engine("newest")
    return "newest"


@pytest.fixture
def host(world: World) -> World:
    """A world whose home belongs to OWNER, with a palace that any path finds by default."""
    (world.state_root / "config.json").write_text("{}")
    for path in (world.root, *world.root.rglob("*")):
        os.chown(path, int(OWNER), int(OWNER), follow_symlinks=False)
    return world


def start_broker(host: World) -> int:
    """Start the host's broker as OWNER; return its pid."""
    done = host.run(*AS_OWNER, str(host.root / "bin" / "mempalace-broker"), "ensure", timeout=COLD_S)
    assert done.returncode == 0, done.stderr
    return host.broker().pid


# --- what is in it


def test_the_base_has_its_tools_and_the_pinned_versions(images: Images, host: World) -> None:
    said = Devbox(images, host).run("bash", "-euc", PARTS.replace("\n", " && ").strip(" &"))
    for words in ("graphviz version", "ImageMagick", "yq 3", "OpenSSH_10", "v24.", "uv 0.13.9", "MemPalace 3.11.0"):
        assert words in said


def test_nothing_of_the_build_machine_stays(images: Images, host: World) -> None:
    paths = "/etc/pip.conf /etc/gitconfig /etc/uv/uv.toml /run/ca.crt /etc/ssl/certs/00000000.0 /run/companions"
    said = Devbox(images, host).run("sh", "-c", f"find {paths} -type f -size +0; env | grep -i -E 'cert|proxy' || true")
    assert said == "", "mount points stay behind, empty"


def test_the_image_says_how_it_is_started(images: Images) -> None:
    config = images.config(STUDIO)
    assert config["Entrypoint"] == ["/usr/bin/tini", "--", "/usr/local/bin/entrypoint.sh"]
    assert config["StopSignal"] == "SIGHUP"
    env = config["Env"]
    assert isinstance(env, list)
    assert {"MEMPALACE_BROKER_DIRECT=never", "MEMPALACE_BROKER_NO_SPAWN=1"} <= set(env)


def test_companions_are_at_the_commits_that_were_asked_for(images: Images, host: World) -> None:
    said = Devbox(images, host, STUDIO).run("cat", "/usr/local/lib/pi-devbox/companions")
    found = {url: (ref, commit) for url, ref, commit in map(str.split, said.splitlines())}
    for one in companions():
        ref, commit = found[one["url"]]
        assert commit == images.head(one["name"])
        assert ref == ("main" if one["name"] == AT_BRANCH else commit)


def test_pi_knows_the_adapter_and_its_companions(images: Images, host: World) -> None:
    packages = [
        "pi-mcp-adapter",
        "/opt/pi-fork",
        "/opt/pi-observational-memory",
        "/opt/pi-extensions",
    ]
    said = Devbox(images, host, STUDIO).run("sh", "-c", "pi --version; pi list; pandoc --version")
    for words in (*packages, "/opt/pi-studio", "0.87.1", "pandoc 3"):
        assert words in said
    assert "/opt/pi-toolkit" not in said, "it holds nothing for pi, which would not start with it"
    assert "/opt/pi-studio" not in Devbox(images, host, PI).run("pi", "list")


def test_a_studio_image_on_the_home_of_a_pi_image_has_studio(images: Images, host: World, tmp_path: Path) -> None:
    options = ("--network", "none", "--volume", f"{tmp_path}:/home/developer")
    for tag, there in ((PI, False), (STUDIO, True), (PI, False)):
        assert ("/opt/pi-studio" in Devbox(images, host, tag).run("pi", "list", options=options)) == there


def test_dot_watch_draws_in_the_container(images: Images, host: World) -> None:
    (host.cwd / "g.dot").write_text("digraph { a -> b }")
    Devbox(images, host).run("dot-watch", "--once", "g.dot")
    png = host.cwd / "g.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.stat().st_uid == int(OWNER), "it belongs to the owner of the workspace"


# --- how it ends


def test_a_stop_reaches_the_command_and_its_status_comes_out(images: Images, host: World) -> None:
    box = Devbox(images, host)
    script = 'trap "echo got TERM; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    with subprocess.Popen(box.argv("bash", "-c", script), env=images.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        images.call("podman", "kill", "--signal", "TERM", box.name)
        assert process.stdout.read() == "got TERM\n"
    assert process.returncode == 9


# --- the broker on the host


def test_a_shim_in_the_container_shares_the_host_s_broker_over_the_bind_mount(images: Images, host: World) -> None:
    """One kernel, no network: as with docker on plain Linux. The workspace gives the container the palace's user."""
    pid = start_broker(host)
    shim = Devbox(images, host).shim()
    added = shim.call_tool("add_drawer", COLD_S, wing="w", room="r", content="written in a container")
    native = host.spawn([*AS_OWNER, str(host.root / "bin" / "mp-shim")])
    native.initialize()
    found = native.call_tool("search", COLD_S, query="written in a container")
    assert "written in a container" in json.dumps(found)
    assert added
    status = host.broker().status()
    assert host.broker().pid == pid
    assert len(status["sessions"]) == 2
    assert host.owners() == {host.broker().engine_pid()}, "one opener, and it is the host's"


@contextlib.contextmanager
def share(folder: Path, mount: Path) -> Iterator[None]:
    """Show `folder` as another kernel's share does: with files, without locks and sockets."""
    with subprocess.Popen(["bindfs", "-f", f"--force-user={OWNER}", folder, mount]) as process:
        try:
            eventually(lambda: os.path.ismount(mount), what="bindfs to mount")
            yield
        finally:
            process.kill()  # not by umount: a container left by a failed test would keep it
            process.wait(10)
            subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.fixture
def sshd(world: World) -> Iterator[Sshd]:
    """An sshd on this machine, whose sessions find the world's commands and palace."""
    require_sshd()
    made = Sshd(world.root / "sshd", env=world.env)
    yield made
    made.close()


def test_a_shim_in_the_container_reaches_the_host_s_broker_over_ssh(
    images: Images, world: World, sshd: Sshd, tmp_path: Path
) -> None:
    """Another kernel's share, and the entry point's bridge: as with Docker Desktop and OrbStack.

    Only the HOST_SSH_ variables are set; the container starts the broker on the host.
    """
    (world.state_root / "config.json").write_text("{}")
    os.chown(world.cwd, int(OWNER), int(OWNER))
    key = tmp_path / "key"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o600)
    os.chown(key, int(OWNER), int(OWNER))
    mount = tmp_path / "share"
    mount.mkdir()
    bridge = {
        "HOST_SSH_USER": "root",
        "HOST_SSH_HOST": "127.0.0.1",
        "HOST_SSH_PORT": str(sshd.port),
        "HOST_SSH_KEY": "/run/key",
    }
    options = ["--network", "host", "--volume", f"{key}:/run/key:ro"]
    for name, value in bridge.items():
        options += ["--env", f"{name}={value}"]
    with share(world.state_root, mount):
        box = Devbox(images, world, palace=mount)
        shim = box.shim(*options)
        shim.call_tool("add_drawer", COLD_S, wing="w", room="r", content="written over a bridge")
        assert sshd.connections(), "it came over ssh"
        connections = sshd.connections()
        second, native = box.second_shim(), world.shim()
        native.initialize()
        for other in (second, native):
            assert "written over a bridge" in json.dumps(other.call_tool("search", COLD_S, query="bridge"))
        assert sshd.connections() == connections, "the shims of a container share one connection"
        assert len(world.brokers()) == 1
        assert world.owners() == {world.broker().engine_pid()}
        second.finish()
        assert shim.finish() == 0


def test_without_a_way_to_the_host_the_container_opens_nothing(images: Images, host: World, tmp_path: Path) -> None:
    """Another kernel's share and no bridge: the image forbids direct mode, although it has an engine."""
    mount = tmp_path / "share"
    mount.mkdir()
    with share(host.state_root, mount):
        shim = Devbox(images, host, palace=mount).shim()
        with pytest.raises(RpcError) as caught:
            shim.call_tool("add_drawer", COLD_S, wing="w", room="r", content="never")
        assert "direct" in caught.value.message
        assert "Hint:" in caught.value.message
        assert not host.palace.exists()
        assert shim.finish() == 0


# --- agents and Studio


def test_pi_in_the_container_writes_to_the_host_s_palace(images: Images, host: World) -> None:
    """The real agent, as the image sets it up; only the model is a fake."""
    start_broker(host)
    drawer = {"wing": "w", "room": "r", "content": "pi was here"}
    with FakeModel("mcp", {"tool": "mempalace_mempalace_add_drawer", "args": json.dumps(drawer)}) as model:
        provider = {"baseUrl": f"http://127.0.0.1:{model.port}/v1", "api": "openai-completions", "apiKey": "none"}
        models = {"providers": {"fake": {**provider, "models": [{"id": "fake-model"}]}}}
        (host.cwd / "models.json").write_text(json.dumps(models))
        script = "cp models.json ~/.pi/agent/ && exec pi -p --provider fake --model fake-model remember < /dev/null"
        said = Devbox(images, host, PI).run("sh", "-c", script, options=("--network", "host"))
    assert "finished" in said
    assert "mcp" in model.offered
    native = host.spawn([*AS_OWNER, str(host.root / "bin" / "mp-shim")])
    native.initialize()
    assert "pi was here" in json.dumps(native.call_tool("search", COLD_S, query="pi")), model.answers


@contextlib.contextmanager
def network() -> Iterator[tuple[str, str]]:
    """A network for one container, as docker's bridge makes it: its name, and the address inside."""
    name, here, inside = f"mpb{uuid.uuid4().hex[:8]}", "10.213.87.1", "10.213.87.2"
    commands = f"""
        ip netns add {name}
        ip link add {name} type veth peer name eth0 netns {name}
        ip addr add {here}/30 dev {name}
        ip link set {name} up
        ip -n {name} link set lo up
        ip -n {name} addr add {inside}/30 dev eth0
        ip -n {name} link set eth0 up
        ip -n {name} route add default via {here}"""
    try:
        for command in commands.strip().splitlines():
            subprocess.run(command.split(), check=True)
        yield name, inside
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False)
        subprocess.run(["ip", "netns", "delete", name], check=False)


def fetch(address: str) -> str:
    """The page, or an empty text."""
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())
    return ""


def test_studio_s_port_is_relayed_from_the_start_and_works_once_studio_does(images: Images, host: World) -> None:
    """STUDIO_EXPOSE=1; a web server on the container's loopback stands in for Studio, and comes later."""
    (host.cwd / "index.html").write_text("this is Studio")
    with network() as (name, inside):
        box = Devbox(images, host, STUDIO)
        options = ("--network", f"ns:/run/netns/{name}", "--env", "STUDIO_EXPOSE=1")
        argv = box.argv("sh", "-c", "read -r go; exec python3 -m http.server --bind 127.0.0.1 8765", options=options)
        with subprocess.Popen(
            argv, env=images.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            health = "/usr/local/lib/pi-devbox/healthcheck.sh"
            eventually(lambda: box.exec("env", "STUDIO_EXPOSE=1", health).returncode == 0, what="a healthy container")
            assert fetch(f"http://{inside}:8765/") == ""
            process.stdin.write("go\n")
            process.stdin.flush()
            eventually(lambda: fetch(f"http://{inside}:8765/") == "this is Studio", what="Studio through the relay")
            log = box.exec("cat", "/home/developer/.local/state/devbox/studio-expose.log").stdout
            assert inside in log
            images.call("podman", "kill", box.name)

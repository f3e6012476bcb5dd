"""Over ssh: one bridge for all agents, every call answered by its deadline, nothing lost, nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker import errors
from tests import proctools
from tests.harness import World, require_engine
from tests.load import Load
from tests.net.road import Road, listening
from tests.net.sshd import require_sshd
from tests.planted import LISTEN, STRANGER
from tests.proctools import eventually

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("ssh")]  # one host for all
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def host() -> Iterator[World]:
    """One world for all these tests: they are about the road to it."""
    require_engine("newest")
    require_sshd()
    with World("newest") as world:
        yield world


# over a connection of the bridge's own, and over the user's ControlMaster
both_masters = pytest.mark.parametrize("master", [False, True], ids=["own", "users"])
_sessions = itertools.count(0, 10)


# --- reaching the broker


@both_masters
def test_twenty_at_once_share_one_bridge_and_one_set_up(host: World, master: bool) -> None:
    with Road(host, master=master) as road:
        shims = [road.shim() for _ in range(20)]
        asked = [shim.start_request("initialize", {"protocolVersion": "2025-06-18"}) for shim in shims]
        for shim, id_ in zip(shims, asked, strict=True):
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        for shim, id_ in [(shim, shim.start_call("kg_stats")) for shim in shims]:
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        status = road.status()
        assert status["mode"] == "forward"
        assert status["over"] == ("your ControlMaster" if master else "a connection of its own")
        assert status["users"] == 20
        assert road.log().count("forward to") == 1
        assert road.bridge()
        eventually(lambda: len(host.brokers()) == 1, what="one broker, those that lost a race gone")
        eventually(lambda: len(road.clients()) == (0 if master else 1), what="no ssh but the one that stays")


def test_without_agents_the_bridge_leaves_and_takes_all_with_it(host: World) -> None:
    with Road(host) as own, Road(host, master=True) as users:
        roads = (own, users)
        shims = [road.started() for road in roads]
        bridges = [road.bridge() for road in roads]
        began = time.monotonic()
        for shim in shims:
            shim.kill()
        for road in roads:
            eventually(road.nothing_left, what="nothing left")
        assert time.monotonic() - began > 3, "the next agent should find the tunnel up for a moment"
        eventually(lambda: not any(map(proctools.is_running, bridges)), what="the end of the bridges")
        assert users.sshd.master_pid(), "the user's own connection stays the user's"


def test_a_second_agent_finds_the_way_open(host: World) -> None:
    with Road(host) as road:
        road.started()
        began = time.monotonic()
        road.started()
        assert time.monotonic() - began < 2
        assert road.log().count("forward to") == 1


def test_the_users_forwards_are_not_set_up_again(host: World) -> None:
    with Road(host) as road:
        taken = road.sshd.folder / "taken"
        taken.touch()
        road.sshd.configure(f"LocalForward {taken} /nowhere", "ExitOnForwardFailure yes", "RemoteCommand false")
        road.started()
        assert road.status()["mode"] == "forward"


def test_a_server_that_was_named_serves_its_graph_wherever_it_lies(host: World, tmp_path: Path) -> None:
    with Road(host) as road:
        shim = host.shim("--palace", str(tmp_path / "palace"), env=road.env)  # its graph would lie in that palace
        road.shims.append(shim)
        shim.initialize()
        assert "entities" in shim.call_tool("kg_stats")


# --- other transports


NOISE = "echo 'Welcome!'; echo '{\"not\": \"ours\"}'; printf 'no newline at the end'"


@pytest.fixture
def noisy(host: World) -> Iterator[None]:
    profile = host.home / ".bashrc"
    profile.write_text(NOISE)
    yield
    profile.unlink()


@pytest.mark.usefixtures("noisy")
@pytest.mark.parametrize("forwards", [True, False])
def test_a_noisy_profile(host: World, forwards: bool) -> None:
    with Road(host, options=[] if forwards else ["AllowStreamLocalForwarding no"]) as road:
        road.started()
        assert road.status()["mode"] == ("forward" if forwards else "stdio")


@both_masters
def test_where_forwarding_is_refused_each_agent_gets_a_command(host: World, master: bool) -> None:
    options = ["AllowStreamLocalForwarding no", "MaxSessions 2"]  # more sessions get connections of their own
    with Road(host, master=master, options=options) as road:
        with Load(road, 2, first=next(_sessions)) as load:
            load.wait_writes(6)
        load.verify()
        assert road.status()["mode"] == "stdio"
        road.finish()
        eventually(lambda: len(road.clients()) == (0 if master else 1), what="the end of the commands")


RESTRICTED = 'command="mempalace-broker ssh-command",restrict'
WITH_FORWARDING = f'{RESTRICTED},port-forwarding,permitopen="[%s]:*",permitlisten="localhost:1"'


def test_a_key_that_may_only_run_our_two_commands(host: World) -> None:
    with Road(host, key_options=RESTRICTED) as road:
        road.started()
        assert road.status()["mode"] == "stdio"
        for command in (
            "id",
            "mempalace-broker stop",
            "mempalace-broker ensure; id",
            "mempalace-broker ensure --tcp any",
        ):
            refused = road.sshd.run("palacehost", command)
            assert refused.returncode == errors.EXIT_USAGE
            assert "not for this key" in refused.stderr
            assert not refused.stdout


def test_a_restricted_key_that_may_forward_our_socket_and_no_other(host: World) -> None:
    socket_path = str(host.state_root / "broker.sock")
    with Road(host, key_options=WITH_FORWARDING % socket_path, options=["AllowStreamLocalForwarding local"]) as road:
        road.started()
        assert road.status()["mode"] == "forward"
        assert road.sshd.run("palacehost", "id").returncode == errors.EXIT_USAGE
        tcp = road.sshd.run("-W", f"127.0.0.1:{road.sshd.port}", "palacehost")
        assert "prohibited" in tcp.stderr
        back = ["-o", "ExitOnForwardFailure=yes", "-R", f"{host.root}/back:/nowhere"]
        assert "forwarding failed" in road.sshd.run(*back, "palacehost", "mempalace-broker ensure").stderr
    with Road(host, key_options=WITH_FORWARDING % f"{host.root}/another.sock") as road:
        road.started()
        assert road.status()["mode"] == "stdio"


def test_a_restricted_key_for_one_state_root(host: World) -> None:
    pinned = f'command="mempalace-broker ssh-command --state-root {host.state_root}",restrict'
    with Road(host, key_options=pinned) as road:
        road.started()
        other = road.sshd.run("palacehost", "mempalace-broker", "ensure", "--state-root", "/tmp/other")
        assert other.returncode == errors.EXIT_USAGE
        assert "'/tmp/other' is not for this key" in other.stderr


SHELLS = [shell for shell in ("fish", "tcsh") if shutil.which(shell)]  # none is part of every machine


@pytest.mark.parametrize("shell", ["", *SHELLS])
@pytest.mark.parametrize("forwards", [True, False])
def test_a_command_where_installers_put_it(host: World, shell: str, forwards: bool) -> None:
    """sshd's shell for a command has a short PATH; its words for "command not found" are each shell's own."""
    folder = host.home / ".local" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "mempalace-broker").symlink_to(host.env["PATH"].split(":")[0] + "/mempalace-broker")
    options = [] if forwards else ["AllowStreamLocalForwarding no"]
    login = f'command="{shutil.which(shell)} -c \\"$SSH_ORIGINAL_COMMAND\\""' if shell else ""
    with Road(host, env={"PATH": "/usr/bin:/bin"}, options=options, key_options=login) as road:
        assert road.sshd.run("palacehost", "mempalace-broker", "ensure").returncode, "that PATH must not find it"
        road.started()
        assert road.status()["mode"] == ("forward" if forwards else "stdio")


@pytest.mark.parametrize("forwards", [True, False])
def test_a_state_root_by_name(host: World, forwards: bool) -> None:
    options = [] if forwards else ["AllowStreamLocalForwarding no"]
    with Road(host, state_root=str(host.state_root), options=options) as road:
        road.started()
        assert road.status()["path"] == str(host.state_root / "broker.sock")
        eventually(lambda: len(host.brokers()) == 1, what="one broker, those that lost a race gone")


# --- what dies


def none(road: Road) -> None:
    pass


def kill_connection(road: Road) -> None:
    road.sshd.end_connections()


def kill_client(road: Road) -> None:
    for pid in [*road.clients(), road.sshd.master_pid()]:
        if pid:
            os.kill(pid, signal.SIGKILL)


def restart_sshd(road: Road) -> None:
    connections = road.sshd.connections()
    road.sshd.stop_listening()
    for pid in connections:
        os.kill(pid, signal.SIGKILL)
    road.sshd.start()


def kill_broker(road: Road) -> None:
    road.world.broker().signal(signal.SIGKILL)


def stop_broker(road: Road) -> None:
    """End it as its idle time does: orderly; the next client that needs it starts it."""
    road.world.broker().signal(signal.SIGTERM)


def remove_bridge_socket(road: Road) -> None:
    os.unlink(road.files.socket)
    road.shim().initialize(PATIENCE_S)


def remove_forwarded_socket(road: Road) -> None:
    os.unlink(f"{road.files.folder}/{road.forwarded()}")
    road.shim().initialize(PATIENCE_S)


def kill_bridge(road: Road) -> None:
    os.kill(road.bridge(), signal.SIGKILL)
    road.shim().initialize(PATIENCE_S)


FAULTS = [
    kill_broker,
    stop_broker,
    remove_bridge_socket,
    remove_forwarded_socket,
    kill_bridge,
    kill_client,  # afterwards no user's master is left
    kill_connection,
    restart_sshd,
]


@contextlib.contextmanager
def frozen(host: World) -> Iterator[None]:
    """Half-open connections: nothing answers, nothing closes. They are given up and replaced, the bridge's own by
    ServerAlive, the user's by a probe: that takes 20 s, meanwhile the block runs.
    """
    with Road(host) as own, Road(host, master=True) as users:
        roads = (own, users)
        shims = [road.started() for road in roads]
        for road in roads:
            road.sshd.end_connections(signal.SIGSTOP)
        asked = [shim.start_call("kg_stats") for shim in shims]
        yield
        for shim, id_ in zip(shims, asked, strict=True):
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        assert [road.status()["over"] for road in roads] == ["a connection of its own"] * 2


def test_no_fault_loses_an_acknowledged_write_or_leaves_a_call_unanswered(host: World) -> None:
    """Both kinds of connection at once: the faults are the same, and a dead broker is dead for both."""
    with frozen(host), Road(host) as own, Road(host, master=True) as users, host.watch_owners() as watch:
        roads = (own, users)
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(Load(road, 2, first=next(_sessions))) for road in roads]
            for fault in [none, *FAULTS]:
                for road in roads:
                    fault(road)
                for load in loads:
                    load.wait_writes(4)
                eventually(lambda: [len(road.bridges()) for road in roads] == [1, 1], what="one bridge for each road")
        for load in loads:
            load.verify()
        eventually(lambda: len(host.brokers()) == 1, what="one broker, those that lost a race gone")
        assert watch.most == 1, watch.worst


def test_the_next_bridge_cleans_up_after_one_that_was_killed(host: World) -> None:
    with Road(host, master=True) as road:
        road.started()
        before = road.forwarded()
        os.kill(road.bridge(), signal.SIGKILL)
        road.started()
        assert road.forwarded() != before
        eventually(lambda: not listening(f"{road.files.folder}/{before}"), what="the user's master without the forward")


def test_a_bridge_that_is_told_to_leave_while_it_sets_up_leaves_nothing(host: World) -> None:
    slow = host.root / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 5\n")
    slow.chmod(0o755)
    with Road(host, command=str(slow)) as road:
        shim = road.shim()
        shim.start_request("initialize", {})
        eventually(lambda: len(road.clients()) == 2, what="a connection, and a command over it")
        bridge = road.bridge()
        shim.kill()
        began = time.monotonic()
        os.kill(bridge, signal.SIGTERM)
        eventually(road.nothing_left, what="nothing left")
        assert time.monotonic() - began < 4, "it did not wait for the command"


# --- what can't work


def refusal(road: Road) -> str:
    """The error that the agent gets, at once."""
    shim = road.shim()
    began = time.monotonic()
    answer = shim.request("tools/call", {"name": "mempalace_kg_stats", "arguments": {}}, PATIENCE_S)
    assert time.monotonic() - began < 10
    assert answer["error"]["code"] == errors.NOT_EXECUTED
    text: str = answer["error"]["message"]
    assert "Hint:" in text
    return text


def test_a_changed_host_key(host: World) -> None:
    with Road(host) as road:
        road.sshd.trust(road.sshd.folder / "key.pub")
        text = refusal(road)
        assert "has changed" in text
        assert "known_hosts" in text


def test_an_unknown_host_key(host: World) -> None:
    with Road(host) as road:
        road.sshd.known_hosts.write_text("")
        assert "Host key verification failed" in (text := refusal(road))
        assert "accept it" in text


def test_a_key_that_is_not_let_in(host: World) -> None:
    with Road(host) as road:
        (road.sshd.folder / "authorized_keys").write_text("")
        assert "Permission denied" in (text := refusal(road))
        assert f"ssh -F {road.sshd.config} palacehost true" in text


def test_no_such_host(host: World) -> None:
    with Road(host) as road:
        road.sshd.configure("HostName no-such-host.invalid")
        assert "Could not resolve hostname" in (text := refusal(road))
        assert "MEMPALACE_BROKER_SSH_HOST" in text


def test_nobody_listens_and_then_somebody_does(host: World) -> None:
    with Road(host) as road:
        road.sshd.stop_listening()
        assert "Connection refused" in (text := refusal(road))
        assert "start sshd" in text
        road.sshd.start()
        shim = road.shims[0]
        eventually(lambda: "result" in shim.request("tools/call", {"name": "mempalace_kg_stats"}), what="an answer")


def test_no_such_command(host: World) -> None:
    with Road(host, command="/opt/nothing/mempalace-broker") as road:
        assert "/opt/nothing/mempalace-broker" in (text := refusal(road))
        assert "MEMPALACE_BROKER_SSH_COMMAND" in text


def test_no_such_configuration(host: World) -> None:
    with Road(host) as road:
        road.sshd.config.rename(road.sshd.folder / "elsewhere")
        assert "Can't open user config file" in refusal(road)
        (road.sshd.folder / "elsewhere").rename(road.sshd.config)


def test_what_the_command_says_there_is_told_here(host: World) -> None:
    with Road(host) as road:
        assert host.cli("stop").returncode == 0
        settings = host.settings
        settings.write_text("[broker]\nnonsense = 1\n")
        try:
            text = refusal(road)
        finally:
            settings.unlink()
        assert "palacehost" in text
        assert "nonsense" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_control_socket_of_another_user_hears_nothing(host: World) -> None:
    """In a folder where anybody can take the name that the user's configuration gives it."""
    with tempfile.TemporaryDirectory(prefix="cm", dir="/tmp") as folder, Road(host) as road:
        os.chmod(folder, 0o1777)
        argv = [sys.executable, "-c", LISTEN, f"{folder}/cm", str(STRANGER)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as rogue:
            try:
                assert rogue.stdout is not None
                assert rogue.stdout.readline() == "ready\n"
                road.sshd.configure(f"ControlPath {folder}/cm", "ControlMaster auto")
                road.started()
                assert road.status()["over"] == "a connection of its own"
            finally:
                rogue.kill()
            assert set(rogue.stdout.read().splitlines()) <= {"heard b''"}


def test_the_users_master_may_be_the_only_one_who_gets_in(host: World) -> None:
    """A password or a second factor: only the connection that is already open will do."""
    with Road(host, master=True) as road:
        (road.sshd.folder / "authorized_keys").write_text("")
        shim = road.started()
        os.kill(road.sshd.master_pid(), signal.SIGKILL)
        answer = shim.request("tools/call", {"name": "mempalace_kg_stats"}, PATIENCE_S)
        assert "Permission denied" in answer["error"]["message"]
        assert "ControlMaster" in answer["error"]["message"]
        road.sshd.allow("")
        road.sshd.master()
        (road.sshd.folder / "authorized_keys").write_text("")
        eventually(lambda: "result" in shim.request("tools/call", {"name": "mempalace_kg_stats"}), what="an answer")
        assert road.status()["over"] == "your ControlMaster"

"""Which routes are tried, in which order, and the error when all of them fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import NOT_EXECUTED, BrokerUnavailable, UsageError
from mempalace_broker.locality import locality as locality_module
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import DiscoveryRecord, encode
from mempalace_broker.route import plan as routes
from mempalace_broker.route import ssh, tcp
from mempalace_broker.route.attempt import ONCE, Connected, Failed, StartPolicy, Waiting
from mempalace_broker.route.endpoint import Endpoint, parse
from mempalace_broker.route.finder import RouteFinder
from mempalace_broker.route.plan import Plan, plan_routes
from mempalace_broker.system import kernel
from mempalace_broker.system.clock import Deadline
from mempalace_broker.system.paths import Context, StateFiles, state_files
from mempalace_broker.system.private import VARIABLE as PRIVATE
from tests.fakes.clock import FakeClock

TOKEN = "ab" * 32
SSH_HOST = "MEMPALACE_BROKER_SSH_HOST"
DIRECT = "MEMPALACE_BROKER_DIRECT"


class Dead:
    """A route that fails."""

    def __init__(self, name: str, taken: list[str]) -> None:
        self.name = name
        self.taken = taken
        self.waited = False

    def step(self) -> Connected | Waiting | Failed:
        if not self.waited:
            self.waited = True
            return Waiting(0.0, -1, f"trying {self.name}")
        self.taken.append(self.name)
        return Failed(BrokerUnavailable(f"{self.name} is dead.", hint=f"fix {self.name}"))

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PalaceIdentity, StateFiles]:
    """A palace that lies on another kernel's filesystem, as far as we can tell."""
    root = tmp_path.resolve()
    (root / "palace").mkdir()
    monkeypatch.setattr(locality_module, "filesystem_of", lambda _path: "virtiofs")
    identity = PalaceIdentity(str(root / "palace"), str(root / "kg"), "default")
    return identity, state_files(identity, {})


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The routes that were tried; ssh and TCP are dead ends."""
    names: list[str] = []

    def dead(name: Callable[[Any], str]) -> Callable[..., Dead]:
        return lambda *args, **_options: Dead(name(args[0]), names)

    monkeypatch.setattr(ssh, "SshRoute", dead(lambda target: f"ssh to {target.host}"))
    monkeypatch.setattr(tcp, "TcpRoute", dead(str))
    return names


CLOCK = FakeClock()


def end(reach: RouteFinder) -> BrokerUnavailable:
    """Step to the end, which must be a failure."""
    for _ in range(10_000):
        found = reach.step()
        if isinstance(found, Failed):
            assert isinstance(found.error, BrokerUnavailable)
            return found.error
        assert isinstance(found, Waiting)
        CLOCK.move(found.seconds)
    raise AssertionError("it never ends")


def reach_of(palace: tuple[PalaceIdentity, StateFiles], **env: str) -> RouteFinder:
    home = os.path.dirname(palace[1].root)
    return RouteFinder(
        Context(palace[0], {"HOME": home, **env}), Deadline.after(CLOCK, 60), StartPolicy(started_by="test")
    )


def plan_of(palace: tuple[PalaceIdentity, StateFiles], env: dict[str, str], filesystem: str = "virtiofs") -> Plan:
    return plan_routes(Context(palace[0], env), filesystem)


def record(palace: tuple[PalaceIdentity, StateFiles], *endpoints: str) -> None:
    made = DiscoveryRecord(record="ab", pid=7, endpoints=list(endpoints), palace=palace[0].as_json(), token=TOKEN)
    Path(palace[1].record).write_bytes(encode(made))


@pytest.mark.parametrize(("mode", "direct"), [("auto", False), ("never", False), ("always", True)])
def test_a_mac_opens_a_palace_on_a_share_only_where_it_is_told_to(
    palace: tuple[PalaceIdentity, StateFiles], monkeypatch: pytest.MonkeyPatch, mode: str, direct: bool
) -> None:
    """It can't read past its cache, so another Mac's lease may look abandoned."""
    monkeypatch.setattr(kernel, "MACOS", True)
    plan = plan_of(palace, {DIRECT: mode}, "smbfs")
    assert plan.direct is direct
    assert ("direct = always" in plan.why_not_direct) is (mode == "auto")


def test_ssh_comes_before_tcp_and_a_bridge_forbids_direct(
    palace: tuple[PalaceIdentity, StateFiles], taken: list[str]
) -> None:
    record(palace, "unix:/nowhere/b.sock", "tcp://192.168.5.2:7001")
    error = end(reach_of(palace, **{SSH_HOST: "me@mac:2222"}))
    assert taken[0] == "ssh to mac"
    assert "tcp://192.168.5.2:7001" in taken[1:]
    for word in ("virtiofs", "ssh to mac is dead", "192.168.5.2:7001 is dead", "a bridge is configured"):
        assert word in error.message
    assert error.hint == "fix ssh to mac"
    assert error.code == NOT_EXECUTED


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_no_direct_broker_on_a_share_that_shows_old_names(palace: tuple[PalaceIdentity, StateFiles], mode: str) -> None:
    """Two brokers on Docker Desktop's share would not see each other's leases, whatever the user allows."""
    plan = plan_of(palace, {DIRECT: mode}, "fakeowner")
    assert not plan.direct
    assert "fakeowner" in plan.why_not_direct


def test_an_agent_on_such_a_share_hears_which_ways_are_left(
    palace: tuple[PalaceIdentity, StateFiles], taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locality_module, "filesystem_of", lambda _path: "fakeowner")
    error = end(reach_of(palace))
    assert taken == []
    assert "a lease on fakeowner proves nothing" in error.message
    assert "MEMPALACE_BROKER_SSH_HOST" in error.hint
    assert "tcp" in error.hint


def test_nothing_configured_and_direct_forbidden(palace: tuple[PalaceIdentity, StateFiles], taken: list[str]) -> None:
    error = end(reach_of(palace, **{DIRECT: "never"}))
    assert taken == []
    assert f"environment ({DIRECT})" in error.message
    assert "MEMPALACE_BROKER_SSH_HOST" in error.hint


@pytest.mark.parametrize(
    ("env", "toml", "direct"),
    [
        ({}, "", True),
        ({DIRECT: "never"}, "", False),
        ({SSH_HOST: "mac"}, "", False),
        ({SSH_HOST: "mac", DIRECT: "always"}, "", True),
        ({}, '[container]\nssh_host = "mac"\n', False),
        ({}, '[container]\nssh_host = "mac"\ndirect = "always"\n', True),
        ({DIRECT: "never"}, '[container]\ndirect = "always"\n', False),
    ],
)
def test_when_direct_is_allowed(
    palace: tuple[PalaceIdentity, StateFiles], env: dict[str, str], toml: str, direct: bool
) -> None:
    Path(palace[1].toml).write_text(toml, encoding="utf-8")
    found = plan_of(palace, {"HOME": "/nowhere", **env})
    assert found.direct is direct
    assert bool(found.why_not_direct) is not direct
    assert (found.ssh is not None) is ("mac" in toml or SSH_HOST in env)


def test_the_devboxs_bridge_is_found_by_itself(palace: tuple[PalaceIdentity, StateFiles], tmp_path: Path) -> None:
    config = tmp_path / ".ssh-local" / "config"
    config.parent.mkdir()
    config.touch()
    target = plan_of(palace, {"HOME": str(tmp_path)}).ssh
    assert target is not None
    assert (target.host, target.config, target.command) == ("host", str(config), "mempalace-broker")


def test_settings_that_make_no_sense_are_named(palace: tuple[PalaceIdentity, StateFiles]) -> None:
    Path(palace[1].root, "config.toml").write_text('[container]\ndirect = "perhaps"\n', encoding="utf-8")
    env = {"HOME": "/nowhere", PRIVATE: palace[1].root}
    found = RouteFinder(Context(palace[0], env), Deadline.after(FakeClock(), 60)).step()
    assert isinstance(found, Failed)
    assert isinstance(found.error, UsageError)
    assert "'perhaps' is none of auto, always, never" in found.error.message


def test_the_shared_settings_name_the_host_and_run_nothing(palace: tuple[PalaceIdentity, StateFiles]) -> None:
    Path(palace[1].toml).write_text(
        '[container]\nssh_host = "me@mac"\nssh_config = "/evil"\nssh_command = "/evil"\n', encoding="utf-8"
    )
    target = plan_of(palace, {"HOME": "/nowhere"}).ssh
    assert target is not None
    assert (target.host, target.user, target.config, target.command) == ("mac", "me", "", "mempalace-broker")


def test_a_named_endpoint_is_the_only_one_tried(
    palace: tuple[PalaceIdentity, StateFiles], taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def named_ssh(endpoint: Endpoint, *_rest: object, **_options: object) -> Dead:
        return Dead(str(endpoint), taken)

    monkeypatch.setattr(routes, "named_ssh", named_ssh)
    record(palace, "tcp://127.0.0.1:7001")
    error = end(reach_of(palace, MEMPALACE_BROKER="ssh://me@box/srv"))
    assert taken == [str(parse("ssh://me@box/srv", "/"))]
    assert error.message == "ssh://me@box/srv is dead."


def test_a_tcp_endpoint_without_a_token_says_where_to_get_one(palace: tuple[PalaceIdentity, StateFiles]) -> None:
    error = end(reach_of(palace, MEMPALACE_BROKER="tcp://127.0.0.1:7001"))
    assert "needs the broker's token" in error.message
    assert "mempalace-broker token" in error.hint


def test_on_the_same_kernel_a_failure_is_the_routes_own(
    palace: tuple[PalaceIdentity, StateFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locality_module, "filesystem_of", lambda _path: "ext4")
    error = end(reach_of(palace, MEMPALACE_BROKER="unix:/nowhere/b.sock"))
    assert "/nowhere/b.sock" in error.message
    assert "Tried" not in error.message


def test_a_listener_that_is_down_still_forbids_direct(palace: tuple[PalaceIdentity, StateFiles]) -> None:
    Path(palace[1].root, "broker-token").write_text(TOKEN, encoding="utf-8")
    found = plan_of(palace, {"HOME": "/nowhere"})
    assert not found.direct
    assert "TCP listener" in found.why_not_direct


def test_a_graph_on_another_kernels_disk_makes_it_another_kernels(
    palace: tuple[PalaceIdentity, StateFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = "/home/dev/.mempalace/knowledge_graph.sqlite3"
    monkeypatch.setattr(locality_module, "filesystem_of", lambda path: "virtiofs" if path in graph else "ext4")
    identity = PalaceIdentity(palace[0].path, graph, "env")
    made = RouteFinder(Context(identity, {"HOME": "/nowhere", DIRECT: "always"}), Deadline.after(CLOCK, 60))
    monkeypatch.setattr(locality_module, "separate_mounts", lambda _identity: "they lie apart")
    error = end(made)
    assert "/home/dev/.mempalace lies on virtiofs" in error.message
    assert "they lie apart" in error.message
    assert "--palace" in error.hint


def test_a_single_look_does_not_start_a_bridge(palace: tuple[PalaceIdentity, StateFiles], tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), SSH_HOST: f"nobody-{os.getpid()}"}
    error = end(RouteFinder(Context(palace[0], env), Deadline.after(CLOCK, 60), StartPolicy(ONCE)))
    assert "no bridge to" in error.message
    assert "mempalace-broker ensure" in error.hint

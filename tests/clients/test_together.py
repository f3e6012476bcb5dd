"""pi, opencode, Claude Code, Codex and a stock server on one palace at once, each with a model that wants to store."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import harness, netbox
from tests.clients.model import Model
from tests.clients.sdk import config_env, node_client, require, server_program
from tests.clients.setup_clients import target
from tests.clients.test_harnesses import QUIET
from tests.elsewhere import BIN, Side
from tests.harness import RpcProcess, World, eventually
from tests.netbox import Box, require_boxes

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
SECONDS = 60.0
PROMPT = "Store what you saw."
GATEWAY = "10.9.12.1"  # this machine, as containers see it
ATTEMPTS = 3  # some ask their model before the server is up, and are done


class Seat:
    """Where one harness runs: on the machine, unless it has a container.

    Attributes:
        home: its HOME, as seen from here; it works in a folder of its name below. model: the address of the model.
        shim: path of mp-shim there.
    """

    def __init__(self, world: World, name: str, side: Side | None = None, home: Path | None = None) -> None:
        self.world = world
        self.side = side
        self.home = home or world.home
        self.name = name
        self.shim = f"{BIN}/mp-shim" if side else server_program(world, "mp-shim")
        self.model = GATEWAY if side else "127.0.0.1"
        self.folder = self.home / name
        self.folder.mkdir()

    def over_tcp(self) -> None:
        """Let its shims take TCP, and nothing else."""
        assert self.side is not None
        (endpoint,) = [one for one in self.world.broker().record["endpoints"] if one.startswith("tcp:")]
        self.side.env["MEMPALACE_BROKER"] = endpoint
        self.side.env["MEMPALACE_BROKER_TOKEN_FILE"] = f"{netbox.HOME}/.mempalace/broker-token"

    def spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> RpcProcess:
        """Start it."""
        path = str(Path(node_client("node")).parent)
        if self.side is None:
            env = {**self.world.env, **QUIET, "PATH": f"{path}:{self.world.env['PATH']}", **env}
            return self.world.spawn(list(argv), env=env, cwd=self.folder)
        env = {**self.side.env, **QUIET, "PATH": f"{path}:{self.side.env['PATH']}", **env}
        return self.world.spawn(self.side.place.argv(argv, env, f"{netbox.HOME}/{self.name}"))


def ways(world: World) -> set[str]:
    """By which ways sessions have come."""
    return {session["via"] for session in world.broker().status()["sessions"]}


class Team:
    """The four harnesses in one world, as `setup` or their documentation would configure them."""

    def __init__(self, world: World, model: Model, seats: Mapping[str, Seat]) -> None:
        self.world = world
        self.model = model
        self.seats = {name: seats.get(name) or Seat(world, name) for name in ("claude", "codex", "opencode", "pi")}

    def run(self, name: str, *argv: str, **env: str) -> None:
        """Run a harness until its model had its say."""
        for _ in range(ATTEMPTS):
            process = self.seats[name].spawn(argv, env)
            process.close_stdin()
            status = process.wait(SECONDS + 200)
            assert status == 0, (name, process.lines[-20:], process.stderr()[-2000:])
            if self.model.asked.get(name):
                return
        raise AssertionError(f"{name} never offered the tool: {self.model.offered.get(name)}")

    def url(self, name: str, more: str = "") -> str:
        """Where a harness finds its model."""
        return self.model.url(name, more, self.seats[name].model)

    def opencode(self) -> None:
        """As of version 1."""
        seat = self.seats["opencode"]
        server = {"type": "local", "command": [seat.shim], "enabled": True, "timeout": 30000}
        options = {"baseURL": self.url("opencode", "/v1"), "apiKey": "x"}
        provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"fake-model": {"name": "fake"}}}
        config = {"autoupdate": False, "mcp": {"mempalace": server}, "provider": {"fake": provider}}
        (seat.folder / "opencode.json").write_text(json.dumps(config))
        self.run("opencode", node_client("opencode"), "run", "-m", "fake/fake-model", PROMPT)

    def claude(self) -> None:
        """Claude Code."""
        seat = self.seats["claude"]
        servers = {"mempalace": {"type": "stdio", "command": seat.shim, "args": []}}
        (seat.home / ".claude.json").write_text(json.dumps({"hasCompletedOnboarding": True, "mcpServers": servers}))
        options = ("--allowedTools", "mcp__mempalace", "--model", "claude-sonnet-4-5")
        self.run(
            "claude",
            *(node_client("claude"), "-p", PROMPT, *options),
            ANTHROPIC_BASE_URL=self.url("claude"),
            ANTHROPIC_API_KEY="sk-ant-none",
            ENABLE_TOOL_SEARCH="false",
        )

    def codex(self) -> None:
        """It passes on only the variables that its configuration names."""
        seat = self.seats["codex"]
        folder = seat.home / ".codex"
        folder.mkdir()
        env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in config_env(self.world).items())
        (folder / "config.toml").write_text(
            'model = "fake-model"\nmodel_provider = "fake"\n'
            f'[model_providers.fake]\nname = "fake"\nbase_url = "{self.url("codex", "/v1")}"\n'
            'env_key = "FAKE_KEY"\nwire_api = "responses"\n'
            f'[mcp_servers.mempalace]\ncommand = "{seat.shim}"\nstartup_timeout_sec = 30\ntool_timeout_sec = 120\n'
            f"env = {{ {env} }}\n"
        )
        options = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
        self.run("codex", node_client("codex"), "exec", *options, PROMPT, FAKE_KEY="x")

    def pi(self) -> None:
        """With its adapter for MCP, which offers one tool for all."""
        seat = self.seats["pi"]
        folder = seat.home / ".pi" / "agent"
        folder.mkdir(parents=True)
        server = {"command": seat.shim, "args": [], "lifecycle": "lazy-keep-alive"}
        (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"mempalace": server}}))
        cost = dict.fromkeys(("input", "output", "cacheRead", "cacheWrite"), 0)
        size = {"contextWindow": 1_000_000, "maxTokens": 1000}
        entry = {"id": "fake-model", "name": "fake", "reasoning": False, "input": ["text"], "cost": cost, **size}
        provider = {"baseUrl": self.url("pi", "/v1"), "api": "openai-completions", "apiKey": "x"}
        (folder / "models.json").write_text(json.dumps({"providers": {"fake": {**provider, "models": [entry]}}}))
        adapter = target() / "node" / "node_modules" / "pi-mcp-adapter" / "index.ts"
        options = ("-p", "--provider", "fake", "--model", "fake-model", "-e", str(adapter))
        self.run("pi", node_client("node"), node_client("pi"), *options, PROMPT, PI_OFFLINE="1")

    def stock(self, ending: threading.Event) -> list[str]:
        """A stock server, until the others are done: the ids of what it stored."""
        server = self.world.bare()
        server.initialize()
        stored: list[str] = []
        while not ending.wait(0.2):
            text = f"stock saw heron {len(stored)} in the pond e"
            told = server.call_tool("add_drawer", 100.0, wing="herons", room="pond", content=text)
            stored.append(told["drawer_id"])
        assert server.finish() == 0
        return stored


@contextlib.contextmanager
def contained(world: World) -> Iterator[dict[str, Seat]]:
    """Claude Code in a container that has the socket in the shared folder, and pi in one that has TCP alone."""
    (world.state_root / "config.json").write_text("{}")  # it names no path: the palace has another one inside
    with contextlib.ExitStack() as stack:
        seats = {}
        for name, here, inside in (("claude", GATEWAY, "10.9.12.2"), ("pi", "10.9.12.5", "10.9.12.6")):
            home = world.root / f"home-{name}"
            home.mkdir()
            box = stack.enter_context(Box(name, {home: netbox.HOME, world.state_root: f"{netbox.HOME}/.mempalace"}))
            box.link(f"{here}/30", f"{inside}/30")
            box.run(["ip", "route", "add", "default", "via", here])
            seats[name] = Seat(world, name, Side(world, box), home)
        yield seats


@pytest.fixture
def model() -> Iterator[Model]:
    with Model(SECONDS, "0.0.0.0") as made:
        yield made


@pytest.mark.parametrize("containers", [False, True], ids=["on the machine", "two in containers"])
def test_all_harnesses_at_once_for_a_minute(model: Model, containers: bool) -> None:
    require("node")
    harness.require_engine("newest")
    if containers:
        require_boxes()
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(World("newest", env={"MEMPALACE_BROKER_TCP": GATEWAY} if containers else {}))
        seats = stack.enter_context(contained(world)) if containers else {}
        first = world.shim()
        first.initialize()
        first.call_tool("add_drawer", 60.0, wing="first", room="r", content="the first heron")
        if containers:
            seats["pi"].over_tcp()
        team, ending = Team(world, model, seats), threading.Event()
        began = time.monotonic()
        with world.watch_owners() as sampler, ThreadPoolExecutor(5) as pool:
            stock = pool.submit(team.stock, ending)
            others = [pool.submit(one) for one in (team.opencode, team.claude, team.codex, team.pi)]
            try:
                if containers:
                    eventually(lambda: ways(world) >= {"unix", "tcp 10.9.12.6"}, 100.0, "sessions by both ways")
                for one in others:
                    one.result(600)
            finally:
                ending.set()
            stored = stock.result(100)
        assert time.monotonic() - began >= SECONDS
        assert sampler.most == 1, sampler.worst
        told = {name: len(texts) for name, texts in model.asked.items()}
        print(told, len(stored), sampler.samples)
        assert set(told) == {"claude", "codex", "opencode", "pi"}
        said = {name: set(re.findall(r"drawer_herons_pond_[0-9a-f]{24}", text)) for name, text in model.told.items()}
        assert first.finish() == 0
        assert world.cli("stop").returncode == 0
        fresh = world.bare()
        fresh.initialize()
        assert fresh.call_tool("list_wings")["wings"]["herons"] == sum(told.values()) + len(stored)
        for drawer in [*stored, *set().union(*said.values())]:
            assert "saw heron" in fresh.call_tool("get_drawer", drawer_id=drawer)["content"]
        assert {name: len(ids) for name, ids in said.items()} == told, "what a harness was told to store, it heard of"
        assert fresh.finish() == 0

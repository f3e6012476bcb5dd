"""pi, opencode, Claude Code, Codex and a stock server on one palace at once, each with a model that wants to store."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import harness
from tests.clients.model import Model
from tests.clients.sdk import config_env, node_client, require, server_program
from tests.clients.setup_clients import target
from tests.clients.test_harnesses import QUIET
from tests.harness import World

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
SECONDS = 60.0
PROMPT = "Store what you saw."
ATTEMPTS = 3  # some ask their model before the server is up, and are done


class Team:
    """The four harnesses in one world, as `setup` or their documentation would configure them."""

    def __init__(self, world: World, model: Model) -> None:
        self.world = world
        self.model = model
        self.shim = server_program(world, "mp-shim")
        for name in ("claude", "codex", "opencode", "pi"):
            (world.root / name).mkdir()

    def run(self, name: str, *argv: str, **env: str) -> None:
        """Run a harness until its model had its say."""
        path = f"{Path(node_client('node')).parent}:{self.world.env['PATH']}"
        env = {**self.world.env, **QUIET, "PATH": path, **env}
        for _ in range(ATTEMPTS):
            process = self.world.spawn(list(argv), env=env, cwd=self.world.root / name)
            process.close_stdin()
            status = process.wait(SECONDS + 200)
            assert status == 0, (name, process.lines[-20:], process.stderr()[-2000:])
            if self.model.asked.get(name):
                return
        raise AssertionError(f"{name} never offered the tool: {self.model.offered.get(name)}")

    def opencode(self) -> None:
        """As of version 1."""
        server = {"type": "local", "command": [self.shim], "enabled": True, "timeout": 30000}
        options = {"baseURL": self.model.url("opencode", "/v1"), "apiKey": "x"}
        provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"fake-model": {"name": "fake"}}}
        config = {"autoupdate": False, "mcp": {"mempalace": server}, "provider": {"fake": provider}}
        (self.world.root / "opencode" / "opencode.json").write_text(json.dumps(config))
        self.run("opencode", node_client("opencode"), "run", "-m", "fake/fake-model", PROMPT)

    def claude(self) -> None:
        """Claude Code."""
        servers = {"mempalace": {"type": "stdio", "command": self.shim, "args": []}}
        (self.world.home / ".claude.json").write_text(
            json.dumps({"hasCompletedOnboarding": True, "mcpServers": servers})
        )
        options = ("--allowedTools", "mcp__mempalace", "--model", "claude-sonnet-4-5")
        self.run(
            "claude",
            *(node_client("claude"), "-p", PROMPT, *options),
            ANTHROPIC_BASE_URL=self.model.url("claude"),
            ANTHROPIC_API_KEY="sk-ant-none",
            ENABLE_TOOL_SEARCH="false",
        )

    def codex(self) -> None:
        """It passes on only the variables that its configuration names."""
        folder = self.world.home / ".codex"
        folder.mkdir()
        env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in config_env(self.world).items())
        (folder / "config.toml").write_text(
            'model = "fake-model"\nmodel_provider = "fake"\n'
            f'[model_providers.fake]\nname = "fake"\nbase_url = "{self.model.url("codex", "/v1")}"\n'
            'env_key = "FAKE_KEY"\nwire_api = "responses"\n'
            f'[mcp_servers.mempalace]\ncommand = "{self.shim}"\nstartup_timeout_sec = 30\ntool_timeout_sec = 120\n'
            f"env = {{ {env} }}\n"
        )
        options = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
        self.run("codex", node_client("codex"), "exec", *options, PROMPT, FAKE_KEY="x")

    def pi(self) -> None:
        """With its adapter for MCP, which offers one tool for all."""
        folder = self.world.home / ".pi" / "agent"
        folder.mkdir(parents=True)
        server = {"command": self.shim, "args": [], "lifecycle": "lazy-keep-alive"}
        (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"mempalace": server}}))
        cost = dict.fromkeys(("input", "output", "cacheRead", "cacheWrite"), 0)
        size = {"contextWindow": 1_000_000, "maxTokens": 1000}
        entry = {"id": "fake-model", "name": "fake", "reasoning": False, "input": ["text"], "cost": cost, **size}
        provider = {"baseUrl": self.model.url("pi", "/v1"), "api": "openai-completions", "apiKey": "x"}
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


@pytest.fixture
def model() -> Iterator[Model]:
    with Model(SECONDS) as made:
        yield made


def test_all_harnesses_at_once_for_a_minute(model: Model) -> None:
    require("node")
    harness.require_engine("newest")
    with World("newest") as world:
        first = world.shim()
        first.initialize()
        first.call_tool("add_drawer", 60.0, wing="first", room="r", content="the first heron")
        team, ending = Team(world, model), threading.Event()
        began = time.monotonic()
        with world.watch_owners() as sampler, ThreadPoolExecutor(5) as pool:
            stock = pool.submit(team.stock, ending)
            others = [pool.submit(one) for one in (team.opencode, team.claude, team.codex, team.pi)]
            try:
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

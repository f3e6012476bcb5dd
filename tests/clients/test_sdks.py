"""The official SDKs, old and new, on mp-shim with the real engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mempalace_broker.broker.machine.tool_schemas import normalise_tools
from mempalace_broker.errors import METHOD_NOT_FOUND
from tests import harness
from tests.clients.conftest import Baseline, differences, furnish, play
from tests.clients.script import Answer, Arguments, Caller
from tests.clients.sdk import SDKS, Sdk
from tests.harness import World, eventually

pytestmark = pytest.mark.clients
newest = pytest.mark.parametrize("engine", ["newest"], indirect=True)
UNLIKE = ("ttlMs", "cacheScope", "resultType")  # what the newest Python SDK adds by itself
PAIRS = [
    *(("newest", name) for name in SDKS if not name.endswith("-legacy")),
    ("3.4.0", "python-new"),
    ("3.4.0", "typescript-client-auto"),
]


@pytest.mark.parametrize(("engine", "name"), PAIRS, indirect=["engine"])
def test_an_sdk_sees_what_bare_mempalace_says(world: World, baseline: Baseline, name: str) -> None:
    furnish(world)
    sdk, bare = Sdk(world, name), baseline(str(world.engine))
    assert sdk.connected["serverInfo"] == bare.initialize["serverInfo"]
    assert [plain(tool) for tool in sdk.tools()] == normalise_tools(bare.tools)
    assert differences(play(world, sdk.call, every_property=False), bare.answers) == []
    assert sdk.ask("ping")["result"] == {}
    prompts = sdk.ask("prompts")
    assert prompts == {"result": {"prompts": []}} or prompts["error"]["code"] == METHOD_NOT_FOUND  # some SDKs know
    sdk.close()
    eventually(lambda: len(world.brokers()) == 1, what="one broker, any that lost a race gone")


def with_whole_paths(world: World, sdk: Sdk) -> Caller:
    """Calls as a client over HTTP has to make them: nobody knows the folder in which it was started."""

    def call(tool: str, arguments: Arguments) -> Answer:
        named = {name: str(world.cwd / arguments[name]) for name in ("source", "project_dir") if arguments.get(name)}
        return sdk.call(tool, {**arguments, **named})

    return call


def plain(tool: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if key not in UNLIKE}


@pytest.mark.parametrize(("engine", "name"), PAIRS, indirect=["engine"])
def test_an_sdk_over_http(world: World, baseline: Baseline, name: str) -> None:
    furnish(world)
    world.settings.write_text(f'[broker]\nguest_folders = ["{world.cwd}"]\n')
    assert world.cli("ensure").returncode == 0
    sdk, bare = Sdk(world, name, "http"), baseline(str(world.engine))
    assert sdk.connected["serverInfo"] in (bare.initialize["serverInfo"], None)  # the newest has no place for it
    assert [plain(tool) for tool in sdk.tools()] == normalise_tools(bare.tools)
    assert differences(play(world, with_whole_paths(world, sdk), every_property=False), bare.answers) == []
    modern = sdk.connected["protocolVersion"] == "2026-07-28"  # which knows no sessions
    assert world.broker().status()["http"]["sessions"] == (not modern)
    assert world.cli("restart").returncode == 0
    assert "triples" in sdk.call("mempalace_kg_stats", {})["text"]  # the session goes on with the next broker
    sdk.close()


@newest
def test_all_sdks_at_once_on_one_palace(world: World) -> None:
    with ThreadPoolExecutor(len(SDKS)) as pool:
        sdks = list(pool.map(lambda name: Sdk(world, name), SDKS))
        with world.watch_owners() as watch:
            list(pool.map(work, sdks))
    assert watch.most <= 1
    for sdk in sdks:  # each finds what each other wrote
        for other in SDKS:
            drawers = sdk.call("mempalace_list_drawers", {"wing": f"wing-{other}"})
            assert drawers["text"].count("drawer_id") == 3, (sdk.name, other)
        sdk.close()
    eventually(lambda: len(world.brokers()) == 1, what="one broker, any that lost a race gone")
    counters = world.broker().status()["counters"]
    assert counters["errors"] == counters["timeouts"] == counters["unknown_outcomes"] == 0


def work(sdk: Sdk) -> None:
    for number in range(3):
        content = f"Note {number} of {sdk.name} about beekeeping."
        answers = [
            sdk.call("mempalace_add_drawer", {"wing": f"wing-{sdk.name}", "room": "r", "content": content}),
            sdk.call("mempalace_search", {"query": f"{sdk.name} beekeeping {number}"}),
            sdk.call("mempalace_kg_add", {"subject": sdk.name, "predicate": "wrote", "object": f"note {number}"}),
            sdk.call("mempalace_diary_write", {"agent_name": sdk.name, "entry": content}),
        ]
        for answer in answers:
            assert '"error"' not in answer.get("text", '"error"'), (sdk.name, answer)


@newest
def test_an_sdk_with_its_filtered_environment_finds_the_same_broker(world: World) -> None:
    agent = world.shim(env={"XDG_RUNTIME_DIR": str(world.root), "SSH_AUTH_SOCK": "/nowhere"})
    agent.initialize()
    agent.call_tool("kg_add", subject="a", predicate="b", object="c")
    world.env["PATH"] = f"{harness.engine_python('newest').parent}:{world.env['PATH']}"  # how an installed one is found
    for name in ("python-old", "python-new", "typescript-new"):
        sdk = Sdk(world, name, env={})
        assert '"triples": 1' in sdk.call("mempalace_kg_stats", {})["text"], name
        sdk.close()
    eventually(lambda: len(world.brokers()) == 1, what="one broker, any that lost a race gone")

"""Where mempalace's hooks and clients are led: to the broker, to the palace itself, to a proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.doctor.upstream_clients import hook_routing, proxy_in_the_way


@pytest.mark.parametrize(
    ("config", "env", "policy"),
    [
        (None, {}, "direct"),
        ({}, {}, "direct"),
        ([], {}, "direct"),
        ({"write_routing": {"hooks": "prefer", "default": "direct"}}, {}, "prefer"),
        ({"write_routing": {"default": "Require "}}, {}, "require"),
        ({"write_routing": "prefer"}, {}, "direct"),
        ({"hooks": {"daemon": True}}, {}, "prefer"),
        ({"hooks": {"daemon": True}, "write_routing": {"hooks": "direct"}}, {}, "direct"),
        ({"write_routing": {"hooks": "prefer"}}, {"MEMPALACE_WRITE_ROUTING": "direct"}, "direct"),
        ({}, {"MEMPALACE_WRITE_ROUTING": "direct", "MEMPALACE_HOOK_WRITE_ROUTING": "prefer"}, "prefer"),
    ],
)
def test_what_config_and_environment_say(tmp_path: Path, config: Any, env: dict[str, str], policy: str) -> None:
    path = tmp_path / ".mempalace" / "config.json"
    path.parent.mkdir()
    if config is not None:
        path.write_text(json.dumps(config))
    found = hook_routing({**env, "HOME": str(tmp_path), "MEMPALACE_CONFIG_DIR": str(path.parent)}, str(tmp_path))
    assert (found.policy, found.path) == (policy, str(path))
    assert found.leads_here is (policy != "direct")


@pytest.mark.parametrize(
    ("env", "proxy"),
    [
        ({}, ""),
        ({"http_proxy": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, ""),
        ({"https_proxy": "http://p:1", "all_proxy": "http://p:1"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost, 127.0.0.1"}, ""),
        ({"http_proxy": "http://p:1", "NO_PROXY": "*"}, ""),
    ],
)
def test_a_proxy_is_in_the_way_unless_this_machine_is_exempt(env: dict[str, str], proxy: str) -> None:
    assert proxy_in_the_way(env) == proxy

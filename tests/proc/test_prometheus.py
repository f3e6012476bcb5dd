"""A real Prometheus, with the configuration of docs/watching.md, and the queries of the dashboard put to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import REPO, World, eventually
from tests.proctools import fetch, free_port

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("watching")]

VARIABLE = "MPB_PROMETHEUS"  # the folder of both programs; Debian's package may be unpacked anywhere
DOCS = (REPO / "docs" / "watching.md").read_text(encoding="utf-8")
DASHBOARD = REPO / "share" / "grafana-dashboard.json"
GLOBAL = "global:\n  scrape_interval: 1s\n"
# Of a broker that is well, in its first minute, and began without a palace, these have nothing to show.
EMPTY = ("call_errors_total", "engine_drawers", "snapshot_newest_time_seconds", "http_refused_total")


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get(VARIABLE) or os.environ.get("PATH"))
    if found is None:
        pytest.skip(f"no {name}: install Prometheus, or name its folder in {VARIABLE}")
    return found


class Prometheus:
    """One that scrapes every second. `address`: of its own API."""

    def __init__(self, folder: Path, configuration: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        file = folder / "prometheus.yml"
        file.write_text(configuration)
        subprocess.run([program("promtool"), "check", "config", str(file)], check=True, capture_output=True)
        argv = [program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [*argv, f"--web.listen-address={self.address}"], stdout=self._log, stderr=self._log
        )

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        said = json.loads(fetch(f"http://{self.address}/api/v1/{path}?{query}"))
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture(scope="module")
def token(warm: World) -> str:
    warm.processes[0].call_tool("kg_stats")
    return warm.cli("token", "--metrics").stdout.strip()


@pytest.fixture(scope="module")
def prometheus(warm: World, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "token").write_text(token)
    (configuration,) = re.findall(r"```yaml\n(scrape_configs:\n.*?)```", DOCS, re.DOTALL)
    said = configuration.replace("/home/me/mempalace-metrics-token", str(folder / "token"))
    said = said.replace("127.0.0.1:21164", f"127.0.0.1:{warm.broker().http_port()}")
    assert said.count(str(folder)) == 1
    made = Prometheus(folder, GLOBAL + said)
    try:
        eventually(lambda: [row["value"][1] for row in made.query("up")] == ["1"], what="a scrape")
        eventually(lambda: made.query("count_over_time(up[1m]) >= 4"), what="four scrapes")
        yield made
    finally:
        made.close()


def test_the_documented_configuration_scrapes_the_broker(warm: World, prometheus: Prometheus) -> None:
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    (info,) = prometheus.query("mempalace_broker_info")
    assert info["metric"]["job"] == "mempalace"
    assert info["metric"]["palace"] == str(warm.palace)


def queries() -> list[str]:
    """The expressions of the dashboard, as Grafana sends them when nothing is chosen."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [expr.replace("$instance", ".*").replace("$__rate_interval", "1m") for expr in found]


@pytest.mark.parametrize("expression", queries())
def test_every_query_of_the_dashboard_finds_something(prometheus: Prometheus, expression: str) -> None:
    found = prometheus.query(expression)
    assert found or any(name in expression for name in EMPTY)


def test_the_variable_of_the_dashboard(prometheus: Prometheus) -> None:
    assert len(prometheus.ask("label/instance/values", **{"match[]": "mempalace_broker_info"})) == 1


def test_the_alerts_of_the_docs_are_queries(prometheus: Prometheus) -> None:
    (said,) = re.findall(r"Worth an alert: (.*?)\n\n", DOCS, re.DOTALL)
    conditions = [text for text in re.findall(r"`([^`]+)`", said) if ">" in text or "==" in text]
    assert len(conditions) == 2
    for condition in conditions:
        assert prometheus.query(f"mempalace_broker_{condition}") == [], "the broker is well"


def test_promtool_finds_nothing_wrong_with_the_metrics(warm: World, token: str) -> None:
    url = f"http://127.0.0.1:{warm.broker().http_port()}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    text = eventually(lambda: fetch(request), what="the new token counts")
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, check=False, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")

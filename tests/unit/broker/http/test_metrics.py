"""The metrics: what Prometheus reads in them, and the dashboard that is made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mempalace_broker.broker.http.metrics import exposition
from tests.fakes.snapshot import NOW, snapshot

REPO = Path(__file__).resolve().parents[4]
DASHBOARD = REPO / "share" / "grafana-dashboard.json"


def samples(**changes: Any) -> dict[tuple[str, str], float]:
    """Each sample by its name and the value of its first label."""
    text, kind = exposition(snapshot(**changes))
    assert kind.startswith("text/plain")
    return {
        (sample.name.removeprefix("mempalace_broker_"), next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_what_the_snapshot_says() -> None:
    found = samples()
    assert found["calls_total", "mempalace_search"] == 100
    assert found["call_errors_total", "mempalace_search"] == 1
    assert found["calls_waiting", "palace"] == 3
    assert found["calls_running", "palace"] == 1
    assert found["engine_state", "ready"] == 1
    assert found["engine_state", "fatal"] == 0
    assert found["engine_resident_memory_bytes", ""] == 220_000 * 1024
    assert found["sessions_open", "unix"] == found["sessions_open", "http"] == 1
    assert found["snapshot_newest_time_seconds", ""] == NOW - 7200
    assert found["http_refused_total", "401"] == 2
    assert found["call_took_seconds_count", "palace"] == 100


def test_the_buckets_of_a_histogram_add_up() -> None:
    text, _ = exposition(snapshot())
    (took,) = (f for f in text_string_to_metric_families(text.decode()) if f.name.endswith("call_took_seconds"))
    counts = {s.labels["le"]: s.value for s in took.samples if s.labels.get("lane") == "palace" and "le" in s.labels}
    assert (counts["0.01"], counts["0.015"], counts["+Inf"]) == (0, 100, 100)
    assert list(counts.values()) == sorted(counts.values())


def test_a_palace_whose_name_is_not_utf_8() -> None:
    palace = snapshot()["palace"] | {"path": "/p/caf\udce9"}
    assert b"caf\\\\udce9" in exposition(snapshot(palace=palace))[0]


def test_what_is_not_known_is_left_out() -> None:
    engine = snapshot()["engine"] | {"state": "down", "rss_kb": None, "drawers": None, "version": None}
    found = samples(engine=engine, http=None, snapshots={"folder": None, "count": 0, "newest_at": None})
    names = {name for name, _ in found}
    assert not names & {"engine_resident_memory_bytes", "engine_drawers", "snapshot_newest_time_seconds"}
    assert not names & {"http_requests_total", "http_refused_total"}
    assert found["engine_state", "down"] == 1


def test_the_dashboard_names_metrics_and_labels_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [str(variable["query"]) for variable in dashboard["templating"]["list"]]
    text, _ = exposition(snapshot())
    families = list(text_string_to_metric_families(text.decode()))
    known = {sample.name for family in families for sample in family.samples}
    named = {name for query in queries for name in re.findall(r"mempalace_broker_\w+", query)}
    assert len(named) > 15
    assert named <= known
    labels = {label for family in families for sample in family.samples for label in sample.labels} | {"instance"}
    used = {name for query in queries for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(", ")}
    legends = [target["legendFormat"] for panel in dashboard["panels"] for target in panel["targets"]]
    used |= {name for legend in legends for name in re.findall(r"\{\{(\w+)\}\}", legend)}
    assert used <= labels


def test_every_metric_has_a_place_on_the_dashboard() -> None:
    text, _ = exposition(snapshot())
    board = DASHBOARD.read_text(encoding="utf-8")
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    left_out = {"mempalace_broker_lease_epoch", "mempalace_broker_snapshots", "mempalace_broker_sessions"}
    assert {name for name in names if name not in board} <= left_out


def test_every_metric_is_documented() -> None:
    names = {re.sub(r"_(count|sum)$", "", name) for name, _ in samples()}
    text = (REPO / "docs" / "watching.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert names == documented

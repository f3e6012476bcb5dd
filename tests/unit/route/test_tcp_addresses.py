"""Where a container looks for the broker whose record names an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.route import tcp_addresses
from mempalace_broker.route.endpoint import parse
from mempalace_broker.route.tcp_addresses import candidates

HOSTS = "127.0.0.1 localhost\n172.17.0.1\thost.docker.internal gw # the host\n# 1.2.3.4 host.containers.internal\n"


@pytest.mark.parametrize(
    ("record", "hosts", "expected"),
    [
        ("tcp://172.17.0.1:5", "", ["tcp://172.17.0.1:5"]),
        ("tcp://172.17.0.1:5", HOSTS, ["tcp://172.17.0.1:5", "tcp://host.docker.internal:5"]),
        ("tcp://0.0.0.0:5", HOSTS, ["tcp://host.docker.internal:5"]),
        ("tcp://127.0.0.1:5", HOSTS, ["tcp://host.docker.internal:5", "tcp://127.0.0.1:5"]),
        ("tcp://0.0.0.0:5", "", []),
    ],
)
def test_candidates(
    record: str, hosts: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_addresses, "_IN_DOCKER", str(tmp_path / "no"))
    file = tmp_path / "hosts"
    file.write_text(hosts)
    assert [str(end) for end in candidates(parse(record, ""), hosts_file=str(file))] == expected

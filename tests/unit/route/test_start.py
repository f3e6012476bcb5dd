"""How a broker is started: its command line and its environment."""

from __future__ import annotations

import sys

import pytest

from mempalace_broker.errors import StartFailed
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route.start import broker_argv, start_broker
from mempalace_broker.system.paths import Context, state_files


def test_the_command_line_says_it_all() -> None:
    identity = PalaceIdentity("/r/palace", "/g", "config", "chroma", "/link")
    argv = broker_argv(identity, state_files(identity, {}), started_by="mp-shim pid 7")
    assert argv == [
        *[sys.executable, "-P", "-m", "mempalace_broker.broker", "--palace", "/r/palace", "--name", "/link"],
        *[
            "--palace-by",
            "config",
            "--graph",
            "/g",
            "--backend",
            "chroma",
            "--root",
            "/r",
            "--started-by",
            "mp-shim pid 7",
        ],
    ]
    plain = PalaceIdentity("/p", "/g", "flag")
    argv = broker_argv(plain, state_files(plain, {}), started_by="x", executable="/py")
    assert argv[0] == "/py"
    assert "--backend" not in argv


def test_the_daemon_understands_its_command_line() -> None:
    """Both sides of one interface."""
    from mempalace_broker.broker.daemon import parse

    identity = PalaceIdentity("/r/palace", "/g", "env", "chroma", "/link")
    argv = broker_argv(identity, state_files(identity, {}), started_by="me")
    options = parse([*argv[argv.index("mempalace_broker.broker") + 1 :], "--start-fd", "9"])
    assert (options.palace, options.palace_by, options.graph, options.root) == ("/r/palace", "env", "/g", "/r")
    assert (options.backend, options.name, options.start_fd, options.started_by) == ("chroma", "/link", 9, "me")


def test_without_an_interpreter_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    identity = PalaceIdentity("/p", "/g", "flag")
    with pytest.raises(StartFailed, match="mempalace-broker run"):
        start_broker(Context(identity, {}), started_by="x")

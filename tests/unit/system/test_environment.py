"""The environment and the limits of a process that serves everybody, whoever happened to start it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker.system.environment import LEFT_OUT, PASSES, known_environment

SETTLE = """
import ctypes, json, os, resource, sys
from mempalace_broker.system.environment import settle_process
found = settle_process(by_agent=True)
names = ("AS", "FSIZE", "CPU", "NOFILE", "CORE", "STACK")
limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names}
print(json.dumps({"found": [what for what, _ in found], "limits": limits, "umask": os.umask(0),
                  "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "fds": len(os.listdir("/proc/self/fd"))}))
"""


def test_relative_folders_are_those_of_the_starter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    out = known_environment({"HOME": "h", "MEMPALACE_CONFIG_DIR": "c/../d"})
    assert (out["HOME"], out["MEMPALACE_CONFIG_DIR"]) == (f"{tmp_path}/h", f"{tmp_path}/d")
    same = {"HOME": "", "MEMPALACE_CONFIG_DIR": "~/c"}
    assert known_environment(same).items() >= same.items()


def test_only_known_variables_pass() -> None:
    env = dict.fromkeys(PASSES, "/x") | {"MEMPALACE_BROKER_IDLE_S": "1", "MEMPALACE_BROKER_PRIVATE": "/mine"}
    strangers = """PYTHONPATH PYTHONHOME PYTHONWARNINGS PYTHONSTARTUP LD_PRELOAD LD_LIBRARY_PATH DYLD_INSERT_LIBRARIES
    BASH_ENV HF_TOKEN PGPASSWORD ANTHROPIC_API_KEY GITHUB_TOKEN TZ LC_ALL LANG LANGUAGE VIRTUAL_ENV XDG_RUNTIME_DIR
    MEMPALACE_BROKER MEMPALACE_BROKER_NO_SPAWN MEMPALACE_BROKER_TOKEN_FILE SSH_AUTH_SOCK CLAUDECODE"""
    out = known_environment(env | dict.fromkeys(strangers.split(), "secret"))
    assert out.pop("LANG") == "C.UTF-8"
    assert out.pop("PATH")
    assert out == env


def test_mempalaces_own_variables_that_do_not_pass_are_named_and_not_shown() -> None:
    env = {"MEMPALACE_PGVECTOR_DSN": "postgresql://u:secret@h", "MEMPALACE_HUB_FORWARD": "1", "HF_TOKEN": "secret"}
    out = known_environment(env)
    assert out[LEFT_OUT] == "MEMPALACE_PGVECTOR_DSN"
    assert "secret" not in str(out)
    assert known_environment(out) == out, "the daemon does the same again"


def test_programs_are_looked_for_where_only_we_can_write(tmp_path: Path) -> None:
    mine, open_to_all = tmp_path / "mine", tmp_path / "open"
    mine.mkdir()
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    path = f".:{mine}::bin:{open_to_all}:/nowhere/bin:/usr/bin"
    found = known_environment({"PATH": path})["PATH"].split(":")
    assert found[:3] == [str(mine), "/nowhere/bin", "/usr/bin"]
    assert "/usr/local/bin" in found
    assert str(open_to_all) not in found
    assert all(os.path.isabs(folder) for folder in found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(("mode", "passes"), [(0o700, True), (0o777, False), (0o1777, False)])
def test_temporary_files_go_where_only_we_can_write(tmp_path: Path, mode: int, passes: bool) -> None:
    tmp_path.chmod(mode)
    assert ("TMPDIR" in known_environment({"TMPDIR": str(tmp_path)})) is passes
    tmp_path.chmod(0o700)
    assert "TMPDIR" not in known_environment({"TMPDIR": "/nowhere"})


def settled(limit: str, soft: int, hard: int) -> dict[str, object]:
    """What a process that was started under a limit has made of itself."""

    def before() -> None:
        os.umask(0)
        resource.setrlimit(getattr(resource, limit), (soft, hard))

    done = subprocess.run([sys.executable, "-c", SETTLE], preexec_fn=before, capture_output=True, check=True)
    told: dict[str, object] = json.loads(done.stdout)
    return told


NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limit", "soft"),
    [("RLIMIT_AS", 1 << 30), ("RLIMIT_FSIZE", 200_000), ("RLIMIT_CPU", 60), ("RLIMIT_CORE", NO_LIMIT)],
)
def test_a_soft_limit_of_one_agent_is_nobody_elses(limit: str, soft: int) -> None:
    if resource.getrlimit(getattr(resource, limit))[1] != NO_LIMIT:
        pytest.skip("limited here already")
    told = settled(limit, soft, NO_LIMIT)
    limits = told["limits"]
    assert isinstance(limits, dict)
    assert limits[limit.removeprefix("RLIMIT_")][0] == (0 if limit == "RLIMIT_CORE" else NO_LIMIT)
    assert limits["CORE"][0] == 0
    assert limits["NOFILE"][0] >= min(10_240, limits["NOFILE"][1])
    assert told["umask"] == 0o077
    assert told["dumpable"] == 0
    assert told["fds"], "its own /proc stays readable"


@pytest.mark.parametrize(
    ("limit", "value", "word"), [("RLIMIT_AS", 1 << 30, "address space"), ("RLIMIT_FSIZE", 200_000, "size of a file")]
)
def test_a_hard_limit_is_named(limit: str, value: int, word: str) -> None:
    found = settled(limit, value, value)["found"]
    assert isinstance(found, list)
    assert any(word in text and str(value) in text for text in found)


def test_whatever_is_started_may_have_more_files_than_a_mac_gives() -> None:
    """launchd and Terminal give 256; a bridge needs three for each shim."""
    code = "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
    code += "from mempalace_broker.system.environment import raise_limits\nraise_limits()\n"
    code += "print(*r.getrlimit(r.RLIMIT_NOFILE))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    soft, hard = map(int, said.split())
    assert soft == (10_240 if hard == NO_LIMIT else min(10_240, hard))


def test_few_descriptors_are_named() -> None:
    assert any("at most 256 files" in str(text) for text in [settled("RLIMIT_NOFILE", 256, 256)["found"]])

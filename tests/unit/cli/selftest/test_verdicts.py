"""Each check can fail: what it measured is forced, its verdict is seen. And what this machine measures is judged ok."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.cli.selftest import programs, share, system_calls
from mempalace_broker.cli.selftest.check import Bench, Check, Verdict, run_check
from mempalace_broker.cli.selftest.facts import started_by
from mempalace_broker.cli.selftest.half import Half
from mempalace_broker.system import kernel
from mempalace_broker.system.clock import Clock, Deadline

OK, DIFFERS, FAILED = Verdict.OK, Verdict.DIFFERS, Verdict.FAILED
SENT = system_calls.Sent
ALL = ["0", "ERR", "HUP", "IN", "OUT"]


def _seen(masks: list[str], *, by_us: bool = True) -> dict[str, tuple[list[str], bool]]:
    return {"pipe, reading": (masks, by_us), "socket": (masks, by_us)}


def _identity(*tokens: str, boot: str = "b", ms: float = 1.0) -> system_calls.Identity:
    return system_calls.Identity((tokens[0], tokens[1]), boot, ms)


def _demo(*, ok: bool) -> dict[str, Any]:
    return {"ok": ok, "seconds": 3.0, "facts": {}, "checks": [{"name": "all there", "ok": ok, "detail": "2 lost"}]}


def checks(folder: Path) -> dict[str, Check]:
    made = (*system_calls.CHECKS, *programs.CHECKS, *share.share_checks(Half(folder)))
    return {check.name: check for check in made}


FORCED: list[tuple[str, bool, Any, Verdict]] = [  # check, on macOS, what it measured, its verdict
    ("send without waiting", False, SENT(9000, False, 2048, False), OK),
    ("send without waiting", False, SENT(0, True, 2048, False), FAILED),
    ("send without waiting", True, SENT(0, True, 2048, False), OK),
    ("send without waiting", True, SENT(0, True, 0, True), FAILED),
    ("send without waiting", True, SENT(9000, False, 2048, False), DIFFERS),
    ("hang-ups", False, _seen(ALL), OK),
    ("hang-ups", False, _seen(["IN"]), DIFFERS),
    ("hang-ups", True, _seen(["IN"]), OK),
    ("hang-ups", True, _seen([], by_us=False), FAILED),
    ("full backlog", False, (17, errno.EAGAIN), OK),
    ("full backlog", False, (17, errno.ECONNREFUSED), DIFFERS),
    ("full backlog", True, (17, errno.ECONNREFUSED), OK),
    ("full backlog", False, (300, 0), DIFFERS),
    ("process identity", False, _identity("1", "1"), OK),
    ("process identity", True, _identity("10:00", "19:00"), FAILED),
    ("process identity", True, _identity("1", "1", boot=""), FAILED),
    ("process identity", True, _identity("1", "1", ms=3000.0), DIFFERS),
    ("short PATH", True, programs.Started(0.1, "/e", "/e"), OK),
    ("short PATH", True, programs.Started(0.1, "", "/e"), FAILED),
    ("short PATH", True, programs.Started(0.1, "", "/e", named=True), DIFFERS),
    ("short PATH", True, programs.Started(60.0, "/e", "/e"), DIFFERS),
    ("spelling", True, {"case": "same broker", "NFD": "another folder"}, OK),
    ("spelling", True, {"case": "another broker"}, FAILED),
    ("spelling", True, {"case": "refused: another palace"}, DIFFERS),
    ("sessions", True, programs.Sessions(300, 300, 0.1), OK),
    ("sessions", True, programs.Sessions(300, 240, 0.1), FAILED),
    ("sessions", True, programs.Sessions(200, 200, 0.1), DIFFERS),
    ("sessions", True, programs.Sessions(40, 40, 0.1), FAILED),
    ("killed broker", True, (True, 0.5), OK),
    ("killed broker", True, (False, 0.5), FAILED),
    ("killed broker", True, (True, 50.0), DIFFERS),
    ("documents", True, ("Terminal", ""), OK),
    ("documents", True, ("ssh", "Operation not permitted"), DIFFERS),
    ("demo", True, _demo(ok=True), OK),
    ("demo", True, _demo(ok=False), FAILED),
    ("share: promises", False, [], OK),
    ("share: promises", False, ["a new name is not listed"], FAILED),
    ("share: meeting", False, (501, 0o600, ""), OK),
    ("share: meeting", False, (501, 0o666, "it belongs to another user"), FAILED),
    ("share: names", False, (0.01, 0.2), OK),
    ("share: names", False, (), FAILED),
    ("share: names", False, (0.01, None), FAILED),
    ("share: records", False, (0.01, 1.9), FAILED),
    ("share: removal", False, share.Removal("ENOENT", 0.01), OK),
    ("share: removal", False, share.Removal("EINVAL", 3.0), FAILED),
    ("share: removal", False, share.Removal("ok", None), FAILED),
    ("share: race", False, (12, 8), OK),
    ("share: race", False, (12, 12), FAILED),
    ("share: race", False, (12, -1), FAILED),
    ("share: socket", False, ("ok", "ECONNREFUSED"), OK),
    ("share: socket", False, ("EPERM", "ENOTSUP"), DIFFERS),
    ("share: socket", False, ("ok", "EAGAIN"), FAILED),
]


@pytest.mark.parametrize(("name", "macos", "measured", "verdict"), FORCED)
def test_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, macos: bool, measured: Any, verdict: Verdict
) -> None:
    monkeypatch.setattr(kernel, "MACOS", macos)
    outcome = checks(tmp_path)[name].judge(measured)
    assert outcome.verdict == verdict
    assert outcome.why or verdict == OK, "people learn why"


def test_every_check_is_forced_to_fail_or_to_differ(tmp_path: Path) -> None:
    bad = {name for name, _, _, verdict in FORCED if verdict != OK}
    assert bad == set(checks(tmp_path))


@pytest.mark.parametrize("name", [check.name for check in system_calls.CHECKS])
def test_what_this_system_does_is_as_documented(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path, {"HOME": str(tmp_path), "MEMPALACE_BROKER_ENGINE": "/nowhere/python"})
    outcome = run_check(checks(tmp_path)[name], bench, Deadline.after(Clock(), 20))
    assert outcome.verdict == OK, outcome


def test_no_more_is_asked_of_a_mac_than_to_list_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, {"HOME": str(tmp_path), "MEMPALACE_BROKER_ENGINE": "/nowhere/python"})
    documents = checks(tmp_path)["documents"]
    assert run_check(documents, bench, Deadline.after(Clock(), 5)).verdict == Verdict.SKIPPED or kernel.MACOS
    monkeypatch.setattr(kernel, "MACOS", True)
    (tmp_path / "Documents").mkdir()
    assert run_check(documents, bench, Deadline.after(Clock(), 5)).verdict == OK
    (tmp_path / "Documents").rmdir()
    assert run_check(documents, bench, Deadline.after(Clock(), 5)).verdict == DIFFERS


@pytest.mark.parametrize(
    ("env", "said"), [({"SSH_CONNECTION": "1"}, "ssh"), ({"TERM_PROGRAM": "iTerm.app"}, "iTerm.app")]
)
def test_who_started_us(env: dict[str, str], said: str) -> None:
    assert started_by(env) == said

"""`doctor` in a process of its own: its answer, or why there is none, and one at a time."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker import health
from mempalace_broker.broker.health import Doctor
from mempalace_broker.protocol.palace import PalaceIdentity
from tests import proctools
from tests.proctools import eventually


def doctor(program: str = "", by: str = "config", **more: Any) -> Doctor:
    made = Doctor(PalaceIdentity("/real/p", "/g", by, more.get("backend"), "/named/p"), {"PATH": "/bin"})
    if program:
        made._argv = [sys.executable, "-c", program]
    return made


def test_it_is_asked_about_the_palace_as_that_was_named() -> None:
    assert doctor()._argv[3:] == ["mempalace_broker", "doctor", "--json"]
    assert doctor(by="flag", backend="chroma")._argv[6:] == ["--palace", "/named/p", "--backend", "chroma"]


def test_its_answer_counts_whatever_its_exit_code() -> None:
    program = 'import os, sys; print(\'{"ok": false, "path": "%s"}\' % os.environ[\'PATH\']); sys.exit(4)'
    assert json.loads(asyncio.run(doctor(program).ask())) == {"ok": False, "path": "/bin"}


@pytest.mark.parametrize(
    ("program", "problem"),
    [("import sys; print('Traceback'); sys.exit(1)", "exit code 1"), ("", "can't be run")],
)
def test_what_went_wrong(program: str, problem: str) -> None:
    made = doctor(program)
    if not program:
        made._argv = ["/no/such/program"]
    answer = json.loads(asyncio.run(made.ask()))
    assert problem in answer["problem"]
    assert answer["findings"] == []


def test_it_has_so_much_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(health, "LIMIT_S", 0.5)
    pid = tmp_path / "pid"
    answer = json.loads(asyncio.run(doctor(f"import os, time; {_tell(pid)}; time.sleep(600)").ask()))
    assert "within 0.5 s" in answer["problem"]
    assert not pid.exists() or not proctools.is_running(int(pid.read_text()))


def test_two_who_ask_at_once_get_one_answer(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    async def work() -> None:
        made = doctor(f"open({str(runs)!r}, 'a').write('x'); print('{{}}')")
        assert list(await asyncio.gather(made.ask(), made.ask())) == [b"{}\n", b"{}\n"]
        assert runs.read_text() == "x"
        await made.ask()
        assert runs.read_text() == "xx"

    asyncio.run(work())


def test_it_ends_with_the_broker(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def work() -> None:
        task = asyncio.create_task(doctor(f"import os, time; {_tell(pid)}; time.sleep(600)").ask())
        await asyncio.to_thread(eventually, lambda: pid.exists() and pid.read_text(), 20, "doctor's start")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert not proctools.is_running(int(pid.read_text()))


def _tell(pid: Path) -> str:
    return f"open({str(pid)!r}, 'w').write(str(os.getpid()))"

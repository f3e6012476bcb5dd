"""Hold a palace to what its servers promised, with a fresh engine and with its backend itself, on copies of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.backends import CHROMA, PGVECTOR
from benchmarks.common import MODEL, Engine, model
from benchmarks.driver import Gone, Session
from benchmarks.storm_load import FIND_AMONG, Ledger
from benchmarks.world import base_env

ENGINE_SIDE = Path(__file__).resolve().parent / "engine_side.py"
DEBRIS = (".corrupt", ".drift", "quarantine")
CALL_S = 30.0  # a verifier's call that takes longer hangs in a damaged index
BACKEND_S = 600.0
READERS = 2


@dataclass
class Verdict:
    """What is wrong with a palace; all empty when nothing is.

    Attributes:
        lost: acknowledged and not there. unfindable: there, but no search finds it.
        unreachable: there, but its own vector does not find it. wrong: there with another text.
        doubled: stored more than once. ghosts: refused or deleted, but there.
        corrupt: sqlite files with complaints. debris: files that upstream puts aside. trouble: how verifying failed.
        checked: drawers, facts and entries looked at.
    """

    lost: list[str] = field(default_factory=list)
    unfindable: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    debris: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    checked: int = 0

    @property
    def clean(self) -> bool:
        found = vars(self)
        return not any(found[name] for name in found if name != "checked")

    def as_json(self) -> dict[str, Any]:
        found = dict(vars(self))
        return {name: value if name == "checked" else sorted(value)[:20] for name, value in found.items()} | {
            f"{name}_count": len(value) for name, value in found.items() if name != "checked"
        }


def check(
    home: Path,
    engine: Engine,
    ledger: Ledger,
    *,
    graph_inside: bool = False,
    backend: str = CHROMA,
    env: Mapping[str, str] | None = None,
) -> Verdict:
    """Judge the palace below `home` by the ledger. Its servers must have ended; works on copies.

    Args:
        graph_inside: the servers kept the knowledge graph in the palace, as with --palace.
        backend: where the drawers are. A palace in PostgreSQL is judged in place: its tables belong to its path.
        env: what mempalace needs for that.
    """
    verdict = Verdict()
    verdict.debris = debris(home / ".mempalace")
    if backend == PGVECTOR:
        copies = [home] * (READERS + 1)
    else:
        copies = [copy(home, home.parent / f"v{number}") for number in range(READERS + 1)]
    verdict.corrupt = complaints(copies[0] / ".mempalace")
    with_env = env or {}
    _check_vectors(copies[0], engine, ledger, verdict, backend, with_env)
    parts = [_Part(ledger, number, READERS, with_env, graph_inside=graph_inside) for number in range(READERS)]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda pair: pair[0].read(pair[1], engine, verdict), zip(parts, copies[1:], strict=True)))
    for folder in set(copies) - {home}:
        shutil.rmtree(folder, ignore_errors=True)
    verdict.lost = sorted(set(verdict.lost))
    return verdict


def copy(home: Path, to: Path) -> Path:
    """The same HOME once more."""
    shutil.copytree(home / ".mempalace", to / ".mempalace", ignore=shutil.ignore_patterns("*.sock"))
    (to / MODEL).parent.mkdir(parents=True)
    (to / MODEL).symlink_to(model())
    config = to / ".mempalace" / "config.json"
    config.write_text(json.dumps({"palace_path": str(to / ".mempalace" / "palace")}), encoding="utf-8")
    return to


def debris(base: Path) -> list[str]:
    return [str(path.relative_to(base)) for path in base.rglob("*") if any(mark in path.name for mark in DEBRIS)]


def complaints(base: Path) -> list[str]:
    """What sqlite's integrity_check says about every database below `base`, where it is not "ok"."""
    found = []
    for path in sorted(base.rglob("*.sqlite3")):
        try:
            connection = sqlite3.connect(path)
            try:
                rows = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            finally:
                connection.close()
        except sqlite3.Error as exc:
            rows = [str(exc)]
        if rows != ["ok"]:
            found.append(f"{path.name}: {rows[0]}")
    return found


def run_side(
    engine: Engine, home: Path, *args: str, stdin: str, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run engine_side.py under the engine's interpreter."""
    argv = [str(engine.python), "-P", str(ENGINE_SIDE), *args]
    return subprocess.run(
        argv, input=stdin, capture_output=True, text=True, env={**base_env(home), **env}, timeout=BACKEND_S, check=False
    )


def _check_vectors(
    home: Path, engine: Engine, ledger: Ledger, verdict: Verdict, backend: str, env: Mapping[str, str]
) -> None:
    jobs: list[Any] = [[name, wanted] for name, wanted in ledger.drawers.items() if name not in ledger.maybe_gone]
    jobs += [[name, [entry]] for name, (_, entry) in ledger.diary.items()]
    palace = home / ".mempalace" / "palace"
    try:
        done = run_side(engine, home, "vectors", str(palace), backend, stdin=json.dumps(jobs), env=env)
        answer = json.loads(done.stdout) if done.returncode == 0 else None
        why = f"exit {done.returncode}: {done.stderr.strip()[-200:]}"
    except subprocess.TimeoutExpired:
        answer, why = None, f"no end after {BACKEND_S:g} s"
    if answer is None:
        verdict.trouble.append(f"{backend} can't open or query the palace: {why}")
        verdict.unreachable += [job[0] for job in jobs]
        return
    verdict.lost += answer["missing"]
    verdict.wrong += answer["wrong"]
    verdict.unreachable += answer["unreachable"]
    verdict.checked += len(jobs)
    copies = Counter(answer["documents"].values())
    verdict.doubled += [text[:60] for text, count in copies.items() if count > 1]
    verdict.ghosts += [text[:60] for text in ledger.refused if text in copies]
    verdict.ghosts += [name for name in ledger.deleted if name in answer["documents"]]


class _Part:
    """A share of the ledger, read back through a fresh server."""

    def __init__(self, ledger: Ledger, number: int, of: int, env: Mapping[str, str], *, graph_inside: bool) -> None:
        self._env = env
        self._graph_inside = graph_inside
        self.drawers = [item for item in list(ledger.drawers.items())[number::of] if item[0] not in ledger.maybe_gone]
        self.facts = ledger.facts[number::of]
        agents = sorted({agent for agent, _ in ledger.diary.values()})[number::of]
        self.diary = {a: [e for agent, e in ledger.diary.values() if agent == a] for a in agents}

    def read(self, home: Path, engine: Engine, verdict: Verdict) -> None:
        argv = [str(engine.python), "-P", str(ENGINE_SIDE), "serve"]
        if self._graph_inside:
            argv += ["--palace", str(home / ".mempalace" / "palace")]
        session = Session(argv, env={**base_env(home), **self._env}, cwd=home, log=home / "verifier.stderr")
        try:
            session.initialize()
            self._facts(session, verdict)
            self._diary(session, verdict)
            self._drawers(session, verdict)
        except (Gone, TimeoutError, OSError) as exc:
            how = f"ended ({session.process.wait(5)})" if isinstance(exc, (Gone, BrokenPipeError)) else str(exc)
            verdict.trouble.append(f"a fresh engine on this palace fails: {how}")
            verdict.unfindable += [name for name, _ in self.drawers]
        finally:
            session.kill()
            session.end()

    def _facts(self, session: Session, verdict: Verdict) -> None:
        for subject, object_ in self.facts:
            said = session.tool("kg_query", CALL_S, entity=subject)
            found = [fact["object"] for fact in said.get("facts", [])]
            verdict.lost += [f"fact {subject}"] * (object_ not in found)
            verdict.doubled += [f"fact {subject}"] * (found.count(object_) > 1)
            verdict.checked += 1

    def _diary(self, session: Session, verdict: Verdict) -> None:
        for agent, entries in self.diary.items():
            said = session.tool("diary_read", CALL_S, agent_name=agent, last_n=1000)
            found = Counter(entry["content"] for entry in said.get("entries", []))
            shown_all = said.get("total", 0) == said.get("showing", 0)
            verdict.lost += [f"entry {text[:40]}" for text in entries if shown_all and not found[text]]
            verdict.doubled += [f"entry {text[:40]}" for text, count in found.items() if count > 1]

    def _drawers(self, session: Session, verdict: Verdict) -> None:
        for name, wanted in self.drawers:
            content = session.tool("get_drawer", CALL_S, drawer_id=name).get("content")
            if content is None:
                verdict.lost.append(name)
                continue
            verdict.wrong += [name] * (content not in wanted)
            said = session.tool("search", CALL_S, query=content, limit=FIND_AMONG)
            found = [hit.get("text") for hit in said.get("results", [])]
            verdict.unfindable += [name] * (content not in found)

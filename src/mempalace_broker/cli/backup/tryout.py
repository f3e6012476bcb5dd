"""Opens a copy of a snapshot with a fresh engine, as a session would, and looks for what has to be in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BrokerError
from ...route.discover import meant_palace
from ...route.engine_version import expected_engine
from ...system.paths import Context, home_of
from ...system.shared_files import read_followed
from ..cleanup import end_stragglers, removed_at_the_end, uninterrupted
from ..demo.agent import Agent, CallFailed
from ..demo.home import environment, find_shim, share_model
from ..stop import stop
from .chroma_rows import sample
from .snapshots import PARTIAL, BadSnapshot, folder_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .snapshots import Snapshot

_DATABASE = "palace/chroma.sqlite3"
_CONFIG = "config/config.json"
_MAX_CONFIG = 1 << 20
_MODEL = "MEMPALACE_EMBEDDING_MODEL"
_CACHE = ".cache/huggingface"  # where mempalace's other models are
_GRAPH = "knowledge_graph.sqlite3"
_SAMPLES = 5
_QUERY_CHARS = 200
_COLLECTION = "mempalace_drawers"


def try_out(snapshot: Snapshot, env: Mapping[str, str], palace: str) -> None:
    """Start a broker and an engine on a copy of the snapshot, read drawers by id and search for them.

    The engine is the one that the broker of `palace` would run.

    Raises:
        BadSnapshot: it does not open, or something is not found. EngineNotFound: there is no mempalace to try with.
    """
    engine = expected_engine(env, palace)
    with _copy_of(snapshot, Path(home_of(env))) as home:
        environ = {**environment(env, home, engine), **({_MODEL: env[_MODEL]} if _MODEL in env else {})}
        agent = Agent("backup", find_shim(), environ, home)
        try:
            agent.initialize()
            _look_around(agent, snapshot)
        except CallFailed as exc:
            raise BadSnapshot(f"{snapshot.path} does not work: {exc.message}.", hint="mempalace-broker doctor") from exc
        finally:
            with uninterrupted():
                agent.kill()
                with contextlib.suppress(BrokerError):  # a broker that does not leave is killed below
                    stop(Context(meant_palace(environ), environ), now=True, why="the snapshot was tried out")
                end_stragglers(str(home))


def _look_around(agent: Agent, snapshot: Snapshot) -> None:
    count, samples = _samples(snapshot)
    told = agent.call("status")
    if count and told.get("total_drawers") != count:
        raise BadSnapshot(f"{snapshot.path} has {count} drawers, but opens with {told.get('total_drawers')}.")
    for drawer, text in samples:
        if text not in str(agent.call("get_drawer", drawer_id=drawer).get("content", "")):
            raise BadSnapshot(f"{snapshot.path}: drawer {drawer} is not what the database says.")
        if not agent.call("search", query=text[:_QUERY_CHARS], limit=1).get("results"):
            raise BadSnapshot(f"{snapshot.path}: a search for the text of drawer {drawer} finds nothing.")


def _samples(snapshot: Snapshot) -> tuple[int, list[tuple[str, str]]]:
    """How many drawers there are, and some of them: id and text. None where another backend has them."""
    if _DATABASE not in snapshot.files:
        return 0, []
    with snapshot.open_database(_DATABASE) as db:
        count, found = sample(db, _COLLECTION, _SAMPLES)
    return count, [(drawer.id, drawer.text) for drawer in found if drawer.text.strip()]


@contextlib.contextmanager
def _copy_of(snapshot: Snapshot, user_home: Path) -> Iterator[Path]:
    """A home whose palace is a copy of the snapshot: an engine writes to what it opens."""
    where = os.path.dirname(snapshot.path)
    with folder_lock(where, fcntl.LOCK_SH), removed_at_the_end(tempfile.mkdtemp(prefix=PARTIAL, dir=where)) as home:
        state = home / ".mempalace"
        for name in snapshot.files:
            place, _, rest = name.partition("/")
            if place != "config":
                target = (
                    state / "palace" / rest if place == "palace" else state / (_GRAPH if place == "graph" else rest)
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(snapshot.file(name), target)
        config = {**_embedding(snapshot), "palace_path": str(state / "palace")}
        (state / "config.json").write_text(json.dumps(config), encoding="utf-8")
        share_model(user_home, home)
        if (user_home / _CACHE).is_dir():
            (home / _CACHE).symlink_to(user_home / _CACHE)
        yield home


def _embedding(snapshot: Snapshot) -> dict[str, object]:
    """What the user's config.json says about embedding: with another model a search would find nothing."""
    if _CONFIG not in snapshot.files:
        return {}
    try:
        said = json.loads(read_followed(snapshot.file(_CONFIG), _MAX_CONFIG))
    except ValueError:  # mempalace then goes by its defaults, too
        return {}
    return {name: said[name] for name in said if name.startswith("embedding")} if isinstance(said, dict) else {}

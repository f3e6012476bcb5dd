"""Jobs on disk."""

from __future__ import annotations

import os
from pathlib import Path

from mempalace_broker.broker.jobs.machine.job import asked_for
from mempalace_broker.broker.jobs.store import FOLDER, JobStore
from mempalace_broker.system.private import VARIABLE, state_folder


def test_a_file_that_is_no_job_keeps_no_other_back(tmp_path: Path) -> None:
    private = state_folder("/p", {VARIABLE: str(tmp_path)})
    store = JobStore(private)
    job = asked_for({"kind": "mine", "payload": {"source": "/notes"}}, id_="1d", secret="5e", now=1000.0, epoch=4)
    store.save(job)
    folder = Path(private.folder(FOLDER).path)
    os.mkfifo(folder / "a.json")
    (folder / "b.json").write_text('{"kind": "mi')
    jobs, failed = store.load()
    assert [job.id for job in jobs] == ["1d"]
    assert sorted(why.partition(": ")[0] for why in failed) == [str(folder / "a.json"), str(folder / "b.json")]

"""Jobs on disk, each in a file of the user's private folder, so that accepted jobs outlive the broker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...system.private import PrivateFile, PrivateFolder
    from .machine.job import Job

FOLDER = "jobs"
_END = ".json"
_LIMIT = 4 << 20


def any_job(private: PrivateFolder) -> bool:
    """Return whether an earlier broker left jobs. Blocks; reads no file."""
    try:
        return bool(os.listdir(private.folder(FOLDER).path))
    except OSError:
        return False


class JobStore:
    """The files of one palace's jobs. Methods block, and raise OSError as the system reports it."""

    def __init__(self, private: PrivateFolder) -> None:
        self._folder = private.folder(FOLDER)

    def load(self) -> tuple[list[Job], list[str]]:
        """Return all jobs, oldest first, and which files can't be read and why."""
        found, failed = [], []
        names = os.listdir(self._folder.path) if os.path.isdir(self._folder.path) else []
        for file in (self._folder.file(name) for name in names if name.endswith(_END)):
            try:
                found.append(_job_in(file))
            except (OSError, ValueError) as exc:
                failed.append(f"{file.path}: {exc}")
        return sorted(found, key=lambda job: job.created), failed

    def save(self, job: Job) -> None:
        """Write the job's present state durably."""
        self._folder.file(job.id + _END).write(job.encode())

    def forget(self, job: Job) -> None:
        """Remove the job's file."""
        os.unlink(self._folder.file(job.id + _END).path)


def _job_in(file: PrivateFile) -> Job:
    from .machine.job import Job  # late: a broker without jobs starts without it

    job = Job.decode(file.read(_LIMIT))
    if job is None:
        raise ValueError("it holds no job")
    return job

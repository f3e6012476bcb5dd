"""Jobs on disk, each in a file of the user's private folder, so that accepted jobs outlive the broker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...system.private import PrivateFolder
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

    def load(self) -> list[Job]:
        """Return all jobs that can be read, oldest first."""
        from .machine.job import Job  # late: a broker without jobs starts without it

        names = os.listdir(self._folder.path) if os.path.isdir(self._folder.path) else []
        found = [Job.decode(self._folder.file(name).read(_LIMIT)) for name in names if name.endswith(_END)]
        return sorted((job for job in found if job is not None), key=lambda job: job.created)

    def save(self, job: Job) -> None:
        """Write the job's present state durably."""
        self._folder.file(job.id + _END).write(job.encode())

    def forget(self, job: Job) -> None:
        """Remove the job's file."""
        os.unlink(self._folder.file(job.id + _END).path)

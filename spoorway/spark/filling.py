"""The place that a job fills, an S3 target's: empty when it begins, whole when it is done, of one job only. Driver only.

The one conditional PUT of storage/lake/commits.py decides between two jobs, and between a job and whoever loads the target.
What a job has staged is seen by nobody; what one that was killed has left goes with the next that finds the place filled.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.seams import Cursor, PermanentError
from spoorway.spark.staging import PREFIX
from storage import lake
from storage.lake import commits
from storage.lake.commits import Commit
from storage.objects import Objects
from storage.targets import Counts


class Filling:
    def __init__(self, objects: Objects, url: str, job: str) -> None:
        """Finishes what a commit had begun. Raises TransientError, PermanentError, where the place heeds no conditions too."""
        self._objects, self._url, self._job = objects, url, job
        self._committing = False  # then what is staged may be what was committed
        commits.check(objects)
        self._last = self._newest()
        if self._last.wiped and not self._last.settled:
            raise PermanentError(f"{url}: emptying it was cut off; load the target once, or name another place")

    @property
    def filled(self) -> Commit | None:
        """What lies there; None when nothing does."""
        return None if self._last.wiped or not self._last.number else self._last

    @property
    def first(self) -> int:
        """The number of the commit that will fill it."""
        return self._last.number + 1

    def commit(self, numbers: int, cursor: Cursor, counts: Counts, files: Sequence[tuple[str, int, str]]) -> None:
        """All of it, or nothing. numbers: of commits that it stands for; files: (name, bytes, where it is staged).

        Raises PermanentError when somebody else filled the place meanwhile; TransientError: nobody knows, ask again.
        """
        commit = Commit(
            self.first + numbers - 1,
            f"spark-{self._job}",
            self._job,
            cursor,
            counts,
            counts,
            tuple((name, size) for name, size, _ in files),
            staged=tuple(staged for *_, staged in files),
            first=self.first,
        )
        self._committing = True
        if commits.add(self._objects, commit, ()):
            self._last = commits.settle(self._objects, commit, b"")
        else:
            self._last = self._newest()
        self._committing = False
        if self._last.mark != self._job:  # otherwise an attempt of ours seemed to fail
            raise self.overtaken()

    def lost(self) -> bool:
        """Whether somebody else has filled it since this began."""
        newest, _ = commits.newest(self._objects)
        return newest.number >= self.first and newest.mark != self._job

    def overtaken(self) -> PermanentError:
        """What is told when another was there first."""
        return PermanentError(f"{self._url}: another job or loader filled it meanwhile; of this one nothing was kept")

    def tidy(self) -> None:
        """Deletes what this job staged; where the place is filled, what any job did: none of them can commit any more.

        Nothing while it is not known whether ours was committed.
        """
        if self._committing:
            return
        prefix = PREFIX if self.filled is not None and self.filled.settled else f"{PREFIX}{self._job}/"
        self._objects.delete([found.name for found in self._objects.list(prefix)])

    def _newest(self) -> Commit:
        last, bodies = commits.newest(self._objects)
        if last.number and not last.settled and not last.wiped:
            last = commits.settle(self._objects, last, bodies)
        return last


def placed(first: int, stretch: int, kind: str, partition: str) -> str:
    """Where a stretch's file of that partition lies: each stretch has a number, so that a partition has a file of each."""
    return lake.piece_name(kind, partition, first + stretch, first + stretch)


__all__ = ["Filling", "placed"]

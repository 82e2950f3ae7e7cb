"""An archive, what one machine makes of it, and the Spark job without Spark: its own tasks, one after the other, here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spoorway import config
from spoorway.cli import main
from spoorway.spark import bundle, job
from spoorway.spark.engine import Here
from storage.archive import Options as Place
from storage.lake import commits
from storage.lake.commits import Commit
from storage.objects import Objects, open_objects
from storage.targets import Counts
from tests.spark import archives

NOW_MS = 1_800_000_000_000


class Site:
    def __init__(self, folder: Path, events: int, segments: int) -> None:
        self.folder = folder
        archives.written(str(folder / "archive"), archives.payloads(events, 7), 7, folder / "segments", segments)
        self.file = folder / "spoorway.toml"
        self.file.write_text(
            f'data = "{folder / "data"}"\n[archive]\nurl = "{folder / "archive"}"\n'
            f'[storage.targets.one]\nuse = "s3"\nurl = "{folder / "one"}"\n'
        )

    def replay(self) -> None:
        """What one machine makes of it, in the place "one"."""
        assert main(["replay", "--from", "archive", "--to", "one", "--config", str(self.file)]) == 0

    def bundle(self, name: str, partial: bool = False) -> Path:
        settings = config.load(self.file, {}, {})
        path = self.folder / f"{name}.zip"
        bundle.pack(settings, settings.archive, Place(str(self.folder / name)), partial, path)
        return path

    def run(self, name: str, told: Callable[[str], Any] = lambda _: None, *, stretch_bytes: int = 1) -> Counts:
        path = self.folder / f"{name}.zip"
        return job.run(Here(), path if path.exists() else self.bundle(name), told, now_ms=NOW_MS, stretch_bytes=stretch_bytes)

    def objects(self, name: str) -> Objects:
        return open_objects(str(self.folder / name))

    def newest(self, name: str) -> Commit:
        return commits.newest(self.objects(name))[0]

    def content(self, name: str) -> Any:
        """Everything that a run must give again."""
        url, newest = str(self.folder / name), self.newest(name)
        return archives.rows(url), archives.failures(url), newest.totals, newest.cursor

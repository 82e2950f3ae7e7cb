"""The journal as it grows -> events and failed events to look at, enriched as a loader would, and kept nowhere.

Of a journal in files, in Kafka or in Kinesis. A look on: no group, no cursor of a target, no memory of devices is moved by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.journal.erasing import ends
from gateway.journal.reader import FileReader
from protocol.seams import ConfigurationError, Cursor, Event, FailedEvent
from spoorway import building
from spoorway.config import Settings
from spoorway.files import journal_folder
from spoorway.loader import enriched
from spoorway.plugins import extra_of

if TYPE_CHECKING:
    from gateway.journal.kafka.reader import KafkaReader
    from gateway.journal.kinesis.reader import KinesisReader

_PAYLOADS = 500


class Following:
    """Call order: look as often as wanted -> close. One thread."""

    def __init__(self, settings: Settings, last: int) -> None:
        """last: of Kafka, so many payloads of each partition that are there already; others begin with what comes from now on.

        Raises ConfigurationError, TransientError, PermanentError.
        """
        self._reader, self._cursor = _opened(settings, last)
        self._pipeline = building.pipeline(settings, remember=False)

    def look(self) -> tuple[list[Event], list[FailedEvent], bool]:
        """What has come since the last one, and whether there is more at once. Raises TransientError, PermanentError."""
        chunk = self._reader.read(self._cursor, max_payloads=_PAYLOADS)
        batch = enriched(self._pipeline, chunk, building.now_ms())
        self._cursor = chunk.cursor
        return list(batch.events), list(batch.failed), bool(chunk.items)

    def close(self) -> None:
        self._reader.close()


def _opened(settings: Settings, last: int) -> tuple[FileReader | KafkaReader | KinesisReader, Cursor]:
    remote = settings.remote()
    if remote is None:
        folder = journal_folder(settings.data)
        if not folder.is_dir():
            raise ConfigurationError(f"there is no journal in {folder} yet; start `spoorway run`, or say --data DIR")
        return FileReader(folder), ends(folder)
    with extra_of(remote.name):
        if remote.name == "kafka":
            from gateway.journal.kafka.reader import KafkaReader

            kafka = KafkaReader(remote.config)
            return kafka, kafka.newest(last)
        from gateway.journal.kinesis.reader import KinesisReader

        return KinesisReader.open(remote.config, newest=True), {}


__all__ = ["Following"]

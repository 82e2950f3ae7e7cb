"""The road not taken: gateway and loader in one process, the loader in a thread. The same parts as `spoorway run`.

python one_process.py DATA PORT ADMIN_PORT [SWITCH_INTERVAL_S]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from threading import Event, Thread

import uvloop

from gateway.journal.reader import FileReader
from spoorway import building
from spoorway.admin import AdminServer, Answers
from spoorway.config import load
from spoorway.files import journal_folder, prepare
from spoorway.intake import Intake
from spoorway.loader import Loader
from spoorway.metrics import render
from spoorway.supervisor import target_metrics


async def main(data: Path, port: int, admin_port: int) -> None:
    settings = load(None, {"data": str(data), "gateway.transports.http.port": port, "admin.port": admin_port})
    prepare(settings.data)
    (instance,) = settings.targets()
    target, folder = building.open_target(settings, instance), journal_folder(settings.data)
    loader = Loader(instance.name, FileReader(folder), building.pipeline(settings), target, building.now_ms)
    intake = Intake(settings)
    await intake.start()
    admin = AdminServer(
        settings.admin,
        Answers(metrics=lambda: render([*intake.metrics(), *target_metrics([loader.status.as_dict()])]), unready=intake.unready),
    )
    admin.start()
    Thread(target=loader.run, args=(Event(), Event()), name="load", daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) > 4:
        sys.setswitchinterval(float(sys.argv[4]))
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

"""The HTTP transport alone: answers as if the journal had taken the payload, keeps nothing. Shows the journal's share.

python without_journal.py PORT
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from gateway.transports.http import Config, Plugin
from protocol.seams import RawPayload


async def main(port: int) -> None:
    async def forget(payload: RawPayload) -> None:
        pass

    plugin = Plugin(Config(port=port))
    await plugin.start(forget)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

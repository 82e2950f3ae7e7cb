"""What a program calls seldom, or never: loaded by the first call of it, and from then on part of Tracker."""

from . import Tracker
from . import entities as entities  # adds to Tracker, too


def find(self, platform) -> None:
    if platform not in "web mob pc srv app tv cnsl iot headset".split():
        raise ValueError(platform)


def set_user_id(self, id) -> None:
    self.fields["uid"] = id


def set_global_entities(self, entities) -> None:
    self.entities = entities


def opt_out(self) -> None:
    """What waits is erased; until `opt_in` nothing is taken, kept or sent. A queue in flash remembers it."""

    def insert(*args):
        self.reason = "opted_out"
        return False

    self.insert = insert
    self.opted_out = True
    queue = self.queue
    if hasattr(queue, "opt"):
        queue.opt(True)
    else:
        queue.remove(queue.items)
    self.link.close()
    self.sleep_ms = 0
    self.step = None  # and nobody waits for an answer any more


def opt_in(self) -> None:
    if self.opted_out:
        self.opted_out = False
        del self.insert
        if hasattr(self.queue, "opt"):
            self.queue.opt(False)


def throw(self, status: int) -> None:
    """What becomes of a message that was not taken: an exception where it is to be sent again."""
    lines = self.items
    self.items = ()  # so nothing of it was sent
    n = len(lines)
    if status == 413 and n > 1:
        self.queue.max = n // 2
        return
    if status not in (400, 404, 410, 413, 422) and (status not in (401, 403) or getattr(self.link, "key", None)):
        raise OSError(status)
    if status == 413:
        self.dropped_large += 1
    else:
        self.refused += n
    self.queue.remove(lines)
    if self.on_error:  # at the end: it may opt out
        self.on_error(status, n)


def close(self, timeout_ms: int = 2_000) -> bool:
    """Flushes, writes to flash what is left in RAM, and hangs up. Whether nothing waits."""
    done = self.flush(timeout_ms)
    try:
        self.queue.write(-1)
        self.link.close()
    except Exception as error:
        self.reason = repr(error)
    return done


async def run(self) -> None:
    """For asyncio: sends for ever."""
    from asyncio import sleep

    while True:
        self.poll()
        await sleep(0.02)


Tracker.refused = Tracker.dropped_large = 0
Tracker.opted_out = False
for each in (find, set_user_id, set_global_entities, opt_out, opt_in, throw, close, run):
    setattr(Tracker, each.__name__, each)
del Tracker.__getattr__

"""The rules of trackers/README.md, in the interpreter that runs this: `ok NAME` for each function below, else its trace.

argv: the package's folder and a folder for queues. No network; the clock is injected.
"""

import json
import os
import sys

sys.path.insert(0, sys.argv[1])
import spoor
from spoor import verbs
from spoor.files import Files


class Script:
    """A link whose answers are written down beforehand: (status, pause in ms); an exception is raised. What it got is kept."""

    timeout_ms = 20_000
    closed = False

    def __init__(self, *answers, key=None):
        self.answers = list(answers)
        self.bodies = []
        self.key = key

    def send(self, tracker, body):
        self.bodies.append(json.loads(body)["data"])
        yield
        answer = self.answers.pop(0) if self.answers else (200, 0)
        if answer == "silence":
            try:
                while True:
                    tracker.now += 1000
                    yield
            finally:
                self.closed = True
        if not isinstance(answer, tuple):
            raise answer
        yield answer

    def update(self, tracker):
        pass

    def close(self):
        self.closed = True


class Clocked(verbs.Tracker):
    now = 5000

    def uptime_ms(self):
        return self.now


def polled(tracker, times=12):
    for _ in range(times):
        tracker.poll()


def fresh(name):
    folder = sys.argv[2] + "/" + name
    try:
        for file in os.listdir(folder):
            os.remove(folder + "/" + file)
    except OSError:
        pass
    return folder


def numbers(link):
    return [[event["se_va"] for event in body] for body in link.bodies]


def track(tracker, count, first=0):
    return [tracker.track_structured("a", "b", value=n) for n in range(first, first + count)]


def what_is_called_seldom_is_loaded_then():
    """The first rule: those after it load it."""
    link = Script((200, 0), OSError(113))
    tracker = spoor.Tracker(link)
    track(tracker, 1)
    assert tracker.flush(9000) and not tracker.queue.size
    track(tracker, 1)
    assert tracker.flush(9000) and len(link.bodies) == 3
    loaded = dir(spoor.Tracker)
    assert "opt_out" not in loaded and "sequence" not in loaded
    assert (tracker.refused, tracker.sequence, hasattr(tracker, "nothing_of_the_kind")) == (0, 0, False)
    loaded = dir(spoor.Tracker)
    assert "opt_out" in loaded and "sequence" in loaded


def a_link_that_cannot_hang_up_stops_nothing():
    class Stuck(Script):
        faults = 3

        def send(self, tracker, body):
            try:
                yield from Script.send(self, tracker, body)
            finally:
                if self.faults:
                    self.faults -= 1
                    raise OSError(5)

    link = Stuck(OSError(113), OSError(113), "silence")
    tracker = Clocked(link)
    track(tracker, 1)
    for _ in range(6):
        polled(tracker, 30)
        tracker.now += 700_000
    assert not link.faults and tracker.sent == 1 and len(link.bodies) == 4


def a_message_that_cannot_be_made_is_made_later():
    class Short(Script):
        faults = 2

        def send(self, tracker, body):
            if self.faults:
                self.faults -= 1
                raise MemoryError("none")
            return Script.send(self, tracker, body)

    tracker = Clocked(Short())
    ids = track(tracker, 1)
    assert tracker.poll() and "MemoryError" in tracker.reason and tracker.sleep_ms
    for _ in range(2):
        tracker.now += 700_000  # the pause
        polled(tracker)
    assert not tracker.link.faults and tracker.sent == 1 and tracker.link.bodies[0][0]["eid"] == ids[0]


def an_idle_serial_line_hears_the_time():
    from spoor import uart

    text = b"t,1768471200000"
    said = [b"!%s*%04x\n" % (text, uart.crc16(text))]

    class Port:
        def read(self, size):
            return said.pop() if said else None

    tracker = Clocked(uart.Uart(Port()), device="pump-1")
    tracker.poll()
    assert tracker.clock == "gateway" and tracker.now + tracker.ticks_diff == 1_768_471_200_000


def an_event_leaves_the_queue_when_it_is_acknowledged():
    link = Script((503, 0), OSError(113), (0, 0), (200, 0))
    tracker = Clocked(link)
    ids = track(tracker, 2)
    for attempt in range(4):
        assert tracker.queue.size, attempt
        polled(tracker)
        tracker.now += 700_000
    assert not tracker.queue.size and tracker.sent == 2 and tracker.resent == 6
    assert [[event["eid"] for event in body] for body in link.bodies] == [ids] * 4


def its_time_is_when_it_was_tracked_and_stm_each_attempt():
    link = Script((503, 0))
    tracker = Clocked(link)
    track(tracker, 1)
    tracker.now = 8000
    polled(tracker)
    tracker.now = 900_000
    polled(tracker)
    assert [(e["dtm"], e["stm"]) for (e,) in link.bodies] == [("5000", "8000"), ("5000", "900000")]


def a_clock_set_meanwhile_does_not_mix_two_clocks():
    link = Script()
    tracker = Clocked(link, device="pump-1")
    track(tracker, 1)
    tracker.now = 6000
    tracker.set_time(1_768_471_200_000, "gateway")
    tracker.now = 7000
    track(tracker, 1)
    polled(tracker)
    first, second = link.bodies[0]
    assert (first["dtm"], first["stm"]) == ("5000", "7000")
    assert (second["dtm"], second["stm"]) == ("1768471201000", "1768471201000")
    clock = json.loads(second["co"])["data"][0]["data"]
    assert (clock["clock"], clock["set_at_ms"], clock["uptime_ms"], clock["sequence"]) == ("gateway", 6000, 7000, 2)


def retry_after_is_the_least_pause():
    link = Script((429, 120_000))
    tracker = Clocked(link)
    track(tracker, 1)
    polled(tracker)
    tracker.now += 119_999
    polled(tracker)
    assert len(link.bodies) == 1
    tracker.now += 1001  # it failed once: up to a second more
    polled(tracker)
    assert len(link.bodies) == 2


def pauses_double_up_to_ten_minutes_with_jitter():
    pauses = []
    for _ in range(20):
        link = Script(*[(500, 0)] * 13)
        tracker = Clocked(link)
        track(tracker, 1)
        polled(tracker, 3)
        row = []
        for attempt in range(1, 13):
            failed = tracker.now
            while len(link.bodies) == attempt:
                tracker.now += 20 + (tracker.now - failed) // 16
                tracker.poll()
            row.append(tracker.now - failed)
            tracker.poll()
        pauses.append(row)
    longest = [max(column) for column in zip(*pauses)]
    # a pause may be none at all, and then the next attempt is made at once: one doubling more
    assert longest[0] < 2000 and longest[3] < 16_000 and longest[-1] < 680_000, longest  # the clock goes in steps
    assert longest[0] > 500 and longest[-1] > 200_000, longest
    assert len({row[-1] for row in pauses}) > 10


def too_large_is_halved_then_dropped_and_counted():
    told = []
    link = Script((413, 0), (413, 0), (200, 0), (413, 0), (413, 0))
    tracker = Clocked(link, on_error=lambda *why: told.append(why))
    track(tracker, 4)
    polled(tracker, 40)
    assert numbers(link) == [["0", "1", "2", "3"], ["0", "1"], ["0"], ["1"], ["2"], ["3"]], numbers(link)
    assert tracker.dropped_large == 2 and told == [(413, 1)] * 2
    assert tracker.sent == 2 and not tracker.queue.size and not tracker.refused


def what_is_refused_is_dropped_counted_and_told():
    for status in (400, 401, 403, 404, 410, 422):
        told = []
        tracker = Clocked(Script((status, 0)), on_error=lambda *why, told=told: told.append(why))
        track(tracker, 2)
        polled(tracker)
        assert tracker.refused == 2 and told == [(status, 2)] and not tracker.queue.size


def credentials_may_still_change():
    for status in (401, 403, 409):
        tracker = Clocked(Script(*[(status, 0)] * 9, key=bytes(32)))
        track(tracker, 1)
        polled(tracker)
        assert tracker.queue.size and not tracker.refused


def silence_ends():
    link = Script("silence")
    tracker = Clocked(link)
    track(tracker, 1)
    polled(tracker, 60)
    tracker.now += 600_000
    polled(tracker)
    assert link.closed and len(link.bodies) == 2 and not tracker.queue.size


def what_does_not_fit_is_counted():
    tracker = Clocked(Script(), queue=spoor.Ram(500))
    ids = track(tracker, 10)
    kept = len([id for id in ids if id])
    assert 0 < kept < 10 and tracker.dropped_full == 10 - kept and tracker.reason == "full"
    polled(tracker)
    assert tracker.sent == kept and track(tracker, 1)[0]


def nothing_is_thrown_at_the_caller():
    class Broken(spoor.Ram):
        def append(self, line, now_ms):
            raise MemoryError("none")

    tracker = Clocked(Script(ValueError("a bug"), (200, 0)))
    assert tracker.track_structured("", "b") is False and tracker.reason == "missing"
    assert tracker.track_self_describing(None, {}) is False and tracker.reason == "missing"
    assert tracker.track_page_view(None) is False
    assert tracker.track_screen_view("") is False
    assert tracker.track_structured("a", "b", entities=7) is False and "TypeError" in tracker.reason
    assert track(tracker, 1)[0]
    polled(tracker)
    assert "a bug" in tracker.reason and tracker.queue.size
    tracker.now += 700_000
    polled(tracker)
    assert not tracker.queue.size
    assert track(Clocked(Script(), queue=Broken()), 1) == [False]


def little_memory_makes_small_messages():
    link = Script(MemoryError("none"), MemoryError("none"))
    tracker = Clocked(link)
    track(tracker, 12)
    for _ in range(20):
        polled(tracker)
        tracker.now += 5000
    sizes = [len(body) for body in link.bodies]
    assert sizes[0] > sizes[1] > sizes[2] >= 1 and tracker.sent == 12, sizes


def who_opted_out_is_not_tracked():
    link = Script((503, 0))
    tracker = Clocked(link, device="pump-1")
    track(tracker, 1)
    polled(tracker)
    track(tracker, 1)
    link.closed = False
    tracker.opt_out()
    assert tracker.queue.size == 0 and link.closed and tracker.flush(0)
    assert track(tracker, 1) == [False] and tracker.reason == "opted_out" and tracker.sequence == 2
    tracker.now += 700_000
    polled(tracker)
    assert len(link.bodies) == 1
    tracker.opt_in()
    assert track(tracker, 1, 7)[0] and tracker.sequence == 3
    polled(tracker)
    assert numbers(link)[1:] == [["7"]] and not tracker.queue.size


def an_answer_to_what_was_erased_drops_nothing_of_later():
    link = Script()
    tracker = Clocked(link)
    track(tracker, 1)
    polled(tracker, 2)  # it is on its way
    tracker.opt_out()
    tracker.opt_in()
    track(tracker, 1, 1)
    polled(tracker)
    assert numbers(link) == [["0"], ["1"]] and tracker.sent == 1 and not tracker.queue.size


def who_opts_out_when_told_of_a_failure_is_not_tracked():
    tracker = Clocked(Script((400, 0)), on_error=lambda *why: tracker.opt_out())
    track(tracker, 2)
    polled(tracker)
    assert tracker.queue.size == 0 and tracker.refused == 2 and track(tracker, 1) == [False]


def flash_remembers_who_opted_out():
    folder = fresh("out")
    tracker = Clocked(Script((503, 0)), queue=Files(folder, segment_bytes=1000))
    track(tracker, 8)
    polled(tracker)
    tracker.opt_out()
    assert not tracker.queue.size and not tracker.queue.errors
    assert sorted(os.listdir(folder)) == ["1-0", "out"]
    link = Script()
    second = Clocked(link, queue=Files(folder))
    assert track(second, 1) == [False] and second.reason == "opted_out"
    polled(second)
    second.opt_in()
    assert track(second, 1)[0]
    polled(second)
    assert numbers(link) == [["0"]] and os.listdir(folder) == ["2-0"]
    with open(folder + "/2-4", "w") as file:  # what a power cut left of an erasure
        file.write("x" * 50)
    with open(folder + "/out", "w"):
        pass
    third = Clocked(link, queue=Files(folder))
    assert not third.queue.size and track(third, 1) == [False] and sorted(os.listdir(folder)) == ["3-0", "out"]


def health_tells_what_was_counted():
    link = Script((503, 0))
    tracker = Clocked(link, device="pump-1")
    track(tracker, 1)
    polled(tracker)
    tracker.now += 60_000
    polled(tracker)
    tracker.track_queue_health()
    polled(tracker)
    data = json.loads(link.bodies[-1][0]["ue_pr"])["data"]
    assert data["schema"] == "iglu:io.spoorway/queue_health/jsonschema/1-0-0"
    assert data["data"]["longest_outage_ms"] == 60_000 and data["data"]["sent"] == data["data"]["resent"] == 1


def the_next_start_sends_what_the_last_one_kept():
    folder = fresh("next")
    tracker = Clocked(Script((503, 0)), device="pump-1", queue=Files(folder))
    ids = track(tracker, 3)
    polled(tracker)
    link = Script()
    again = Clocked(link, device="pump-1", queue=Files(folder))
    assert again.boot == tracker.boot + 1 == 2
    ids += track(again, 1, 3)
    polled(again)
    assert [e["eid"] for body in link.bodies for e in body] == ids
    assert ["stm" in e for body in link.bodies for e in body] == [False, False, False, True]
    assert os.listdir(folder) == ["2-0"] and not again.queue.size
    assert Clocked(link, queue=Files(folder)).boot == 3


def a_torn_line_costs_itself_only():
    folder = fresh("torn")
    tracker = Clocked(Script(), queue=Files(folder))
    ids = track(tracker, 3)
    with open(folder + "/1-1", "rb") as file:
        data = file.read()
    with open(folder + "/1-1", "wb") as file:
        file.write(data[:-20])
    link = Script()
    again = Clocked(link, queue=Files(folder))
    ids = ids[:2] + track(again, 1, 3)
    polled(again)
    assert [e["eid"] for body in link.bodies for e in body] == ids and again.queue.errors == 1


def a_line_that_rotted_costs_itself_only():
    folder = fresh("rot")
    tracker = Clocked(Script(), queue=Files(folder))
    ids = track(tracker, 3)
    with open(folder + "/1-1", "rb") as file:
        data = bytearray(file.read())
    data[40] ^= 1
    with open(folder + "/1-1", "wb") as file:
        file.write(data)
    link = Script()
    again = Clocked(link, queue=Files(folder))
    polled(again)
    assert [e["eid"] for body in link.bodies for e in body] == ids[1:] and again.queue.errors == 1


def flash_has_a_cap():
    folder = fresh("cap")
    tracker = Clocked(Script((503, 0)), queue=Files(folder, max_bytes=3000, segment_bytes=1000))
    track(tracker, 30)
    assert tracker.dropped_full and sum([os.stat(folder + "/" + name)[6] for name in os.listdir(folder)]) <= 3000
    polled(tracker)
    tracker.now += 700_000
    polled(tracker, 40)
    assert tracker.sent + tracker.dropped_full == 30 and not tracker.queue.size


def erases_are_spread():
    folder = fresh("erases")
    tracker = Clocked(Script(*[(503, 3_600_000)] * 99), queue=Files(folder, erases_per_day=3 * 24))  # a write an hour
    track(tracker, 3)
    assert tracker.queue.unsaved == 2
    tracker.now += 3_600_001
    polled(tracker)
    assert tracker.queue.unsaved == 0
    track(tracker, 2)
    assert tracker.queue.unsaved == 2
    tracker.close(0)
    assert tracker.queue.unsaved == 0 and tracker.link.closed
    ids = track(tracker, 40)
    assert False in ids and tracker.dropped_full  # RAM is full, and the erases do not allow a write


def what_moves_to_flash_while_it_is_sent_is_not_lost():
    folder = fresh("moves")
    link = Script()
    tracker = Clocked(link, queue=Files(folder, erases_per_day=3 * 24))
    ids = track(tracker, 1)
    polled(tracker)
    ids += track(tracker, 2, 1)
    polled(tracker, 2)  # the two are on their way
    tracker.now += 3_600_001
    ids += track(tracker, 1, 3)  # and all three go to flash
    ids += track(tracker, 1, 4)
    polled(tracker, 20)
    seen = [e["eid"] for body in link.bodies for e in body]
    assert set(seen) == set(ids) and not tracker.queue.size, (seen, ids)


def flash_that_fails_is_counted_and_ram_takes_over():
    folder = fresh("fails")
    link = Script()
    tracker = Clocked(link, queue=Files(folder))
    tracker.queue.folder = folder + "/no/such"
    ids = track(tracker, 2)
    assert all(ids) and tracker.queue.errors and tracker.queue.unsaved == 2
    polled(tracker, 20)
    assert [e["eid"] for body in link.bodies for e in body] == ids
    nowhere = Clocked(Script(), queue=Files("/proc/none/such"))
    assert nowhere.boot == 0 and all(track(nowhere, 1)) and nowhere.queue.errors == 1
    nowhere.opt_out()
    assert not nowhere.queue.size and track(nowhere, 1) == [False] and nowhere.queue.errors == 2
    assert "out" not in os.listdir("/")


def a_flashed_board_knows_where_to_send():
    from spoor import board

    path = sys.argv[2] + "/spoorway.json"
    said = {"version": 1, "device": "pump-7", "key": "0f" * 32, "password": "word", "url": "mqtt://10.0.0.1", "wifi": ["n", "p"]}
    for url, kind in (("mqtt://10.0.0.1", "Mqtt"), ("http://10.0.0.1:8080", "Http"), (None, "Uart")):
        if url:
            said["url"] = url
        else:
            del said["url"]
        with open(path, "w") as file:
            file.write(json.dumps(said))
        found = board.settings(path)
        link = board.link(found, port=7)
        assert type(link).__name__ == kind
        if kind == "Mqtt":
            assert (link.host, link.index, link.password) == ("10.0.0.1", 1883, "word")
        else:
            assert link.key == b"\x0f" * 32
    with open(path, "w") as file:
        file.write('{"version": 2, "device": "pump-7"}')
    try:
        board.settings(path)
        raise AssertionError("another version was taken")
    except ValueError:
        pass


def uptime_outlasts_its_counter():
    tracker = verbs.Tracker(Script())
    tracker.ticks_ms -= 100_000
    assert 100_000 <= tracker.uptime_ms() < 110_000 and tracker.uptime_ms() < 110_000


def flush_ends():
    tracker = verbs.Tracker(Script((503, 9000)))
    track(tracker, 1)
    assert tracker.flush(20) is False
    assert verbs.Tracker(Script()).flush(20) is True


def asyncio_runs_beside():
    import asyncio

    tracker = verbs.Tracker(Script())

    async def main():
        task = asyncio.create_task(tracker.run())
        track(tracker, 1)
        for _ in range(200):
            await asyncio.sleep(0.01)
            if tracker.sent:
                break
        task.cancel()

    asyncio.run(main())
    assert tracker.sent == 1


RULES = [
    what_is_called_seldom_is_loaded_then,
    a_link_that_cannot_hang_up_stops_nothing,
    a_message_that_cannot_be_made_is_made_later,
    an_idle_serial_line_hears_the_time,
    an_event_leaves_the_queue_when_it_is_acknowledged,
    its_time_is_when_it_was_tracked_and_stm_each_attempt,
    a_clock_set_meanwhile_does_not_mix_two_clocks,
    retry_after_is_the_least_pause,
    pauses_double_up_to_ten_minutes_with_jitter,
    too_large_is_halved_then_dropped_and_counted,
    what_is_refused_is_dropped_counted_and_told,
    credentials_may_still_change,
    silence_ends,
    what_does_not_fit_is_counted,
    nothing_is_thrown_at_the_caller,
    little_memory_makes_small_messages,
    who_opted_out_is_not_tracked,
    an_answer_to_what_was_erased_drops_nothing_of_later,
    who_opts_out_when_told_of_a_failure_is_not_tracked,
    flash_remembers_who_opted_out,
    health_tells_what_was_counted,
    the_next_start_sends_what_the_last_one_kept,
    a_torn_line_costs_itself_only,
    a_line_that_rotted_costs_itself_only,
    flash_has_a_cap,
    erases_are_spread,
    what_moves_to_flash_while_it_is_sent_is_not_lost,
    flash_that_fails_is_counted_and_ram_takes_over,
    a_flashed_board_knows_where_to_send,
    uptime_outlasts_its_counter,
    flush_ends,
    asyncio_runs_beside,
]

if __name__ == "__main__":
    for rule in RULES:
        try:
            rule()
            print("ok", rule.__name__)
        except Exception as error:
            print("failed", rule.__name__, repr(error))
            if hasattr(sys, "print_exception"):
                sys.print_exception(error)
            else:
                import traceback

                traceback.print_exc(file=sys.stdout)

"""The smaller parts of the Python tracker: declared events, subjects, the command, logging, data frames, asyncio, the wheel."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NotRequired, TypedDict
from uuid import RFC_4122, UUID

import pytest

from spoorway_tracker import (
    AsyncTracker,
    InvalidData,
    Refusal,
    Subject,
    Tracker,
    acting_as,
    describes,
    self_describing,
)  # fmt: skip
from spoorway_tracker.http import Http
from spoorway_tracker.integrations.logging import Handler
from spoorway_tracker.integrations.pandas import track_frame
from spoorway_tracker.integrations.web import Request, subject_of
from spoorway_tracker.mqtt import Mqtt
from spoorway_tracker.tracker import Verbs, new_id
from tests.trackers.python.answering import Answering, status

SOURCES = Path(__file__).parents[3] / "trackers/python"
SALE = "iglu:com.acme/sale/jsonschema/1-0-0"


@pytest.fixture
def tracker(answering: Answering) -> Iterator[Tracker]:
    with Tracker(answering.url, "app", folder=None, background=False) as made:
        yield made


@pytest.fixture
def sent(tracker: Tracker, answering: Answering) -> Callable[[], list[dict[str, str]]]:
    def all_of_it() -> list[dict[str, str]]:
        assert tracker.flush(5)
        return [event for asked in answering.asked for event in asked.events]

    return all_of_it


def described(event: dict[str, str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(event["ue_pr"])["data"]
    return data


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    file = tmp_path / "sale.json"
    file.write_text(json.dumps({
        "self": {"vendor": "com.acme"}, "type": "object", "required": ["sku"], "additionalProperties": False,
        "properties": {
            "sku": {"type": "string", "maxLength": 8, "pattern": "^[A-Z]"}, "price": {"type": "number", "minimum": 0},
            "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 2, "uniqueItems": True},
            "coupon": {"type": ["string", "null"]},
        },
    }))  # fmt: skip
    return file


def test_dataclass_says_its_schema_and_is_checked(
    tracker: Tracker, sent: Callable[[], list[dict[str, str]]], schema_file: Path
) -> None:
    @self_describing(SALE, schema_file)
    @dataclass
    class Sale:
        sku: str
        price: float | None = None
        tags: list[str] = field(default_factory=list[str])

    assert tracker.track_self_describing(Sale("DUCK", 9.5, ["new"]), entities=[Sale("X")])
    for wrong in (Sale("duck"), Sale("D" * 9), Sale("D", -1), Sale("D", 1, ["new", "new"]), Sale("D", 1, ["x"]), Sale(5)):  # type: ignore[arg-type]
        assert tracker.track_self_describing(wrong) is Refusal.INVALID, wrong
    (event,) = sent()
    assert described(event) == {"schema": SALE, "data": {"sku": "DUCK", "price": 9.5, "tags": ["new"]}}
    assert json.loads(event["co"])["data"] == [{"schema": SALE, "data": {"sku": "X", "tags": []}}]


def test_typed_dictionary_is_checked_where_it_is_described(schema_file: Path) -> None:
    class Sale(TypedDict):
        sku: str
        price: NotRequired[float]

    sale = describes(SALE, Sale, schema_file)
    assert sale({"sku": "DUCK"}) == (SALE, {"sku": "DUCK"})
    with pytest.raises(InvalidData, match=r"lacks sku; .*colour: not allowed"):
        sale({"colour": 1})  # type: ignore[typeddict-item, typeddict-unknown-key]


def test_schema_with_a_rule_that_cannot_be_checked_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"a": {"oneOf": []}}}')
    with pytest.raises(ValueError, match=r"a: cannot check oneOf"):
        describes(SALE, dict, tmp_path / "s.json")


def test_subjects_do_not_mix_between_tasks(tracker: Tracker, sent: Callable[[], list[dict[str, str]]]) -> None:
    tracker.set_user_id("program")

    async def request(name: str) -> None:
        with acting_as(Subject(user_id=name)):
            await asyncio.sleep(0)
            tracker.track_structured("a", name)

    async def main() -> None:
        await asyncio.gather(*(request(f"u{n}") for n in range(20)))
        tracker.track_structured("a", "program")
        tracker.track_structured("a", "call", subject=Subject(user_id="call"))

    asyncio.run(main())
    assert all(event["uid"] == event["se_ac"] for event in sent()) and len(sent()) == 22


@pytest.mark.parametrize("cookies", ["", "_sp_id.1=", "_sp_id.1=a.b.c", "sp=x", ";;=", "_sp_id.1=d.1.²", "a" * 10_000])
def test_broken_cookies_break_nothing(cookies: str) -> None:
    assert subject_of(Request("GET", "http://x/", "/", cookies=cookies)).parameters.keys().isdisjoint({"sid", "vid", "tnuid"})


def test_log_record_becomes_an_error_event_and_our_own_do_not(tracker: Tracker, sent: Callable[[], list[dict[str, str]]]) -> None:
    logger, handler = logging.getLogger("ducks.pond"), Handler(tracker)
    ours = logging.getLogger("spoorway_tracker")
    for one in (logger, ours):
        one.addHandler(handler)
    try:
        try:
            raise ValueError("no ducks")
        except ValueError:
            logger.exception("looked %s", "twice")
        logger.error("plain")
        logger.warning("below")
        ours.error("not to be tracked")
    finally:
        for one in (logger, ours):
            one.removeHandler(handler)
    first, second = (described(event)["data"] for event in sent())
    assert (first["message"], first["exceptionName"], first["className"]) == ("looked twice", "ValueError", "ducks.pond")
    assert "no ducks" in first["stackTrace"]
    assert (second["message"], Path(second["fileName"]).name) == ("plain", "test_python_parts.py")


def test_ids_are_random_uuids_and_none_is_given_twice_to_threads() -> None:
    def taken_by_others(digits: Iterable[str]) -> None:
        """As if other threads had emptied the store before this one came to its own."""

    with ThreadPoolExecutor(8) as pool:
        ids = [one for each in pool.map(lambda _: [new_id() for _ in range(2_000)], range(8)) for one in each]
    assert len(set(ids)) == 16_000
    assert all((UUID(one).version, UUID(one).variant, str(UUID(one))) == (4, RFC_4122, one) for one in ids)
    ours = type(new_id)()
    ours._digits = SimpleNamespace(pop=[].pop, extend=taken_by_others)  # type: ignore[assignment]
    assert UUID(ours()).version == 4


def test_rows_of_a_data_frame_become_events(tracker: Tracker, sent: Callable[[], list[dict[str, str]]]) -> None:
    import pandas

    frame = pandas.DataFrame({
        "sensor": ["a", "b"], "celsius": [21.5, float("nan")], "n": [1, 2], "flag": pandas.array([True, None], dtype="boolean"),
        "at": [datetime(2026, 1, 15, 10, tzinfo=UTC), pandas.NaT],
    })  # fmt: skip
    assert track_frame(tracker, frame, SALE, time="at") == {"tracked": 2}
    first, second = sent()
    assert (described(first)["data"], first["ttm"]) == ({"sensor": "a", "celsius": 21.5, "n": 1, "flag": True}, "1768471200000")
    assert described(second)["data"] == {"sensor": "b", "n": 2} and "ttm" not in second


def test_asyncio_front_leaves_the_loop_free_while_it_waits(answering: Answering, tmp_path: Path) -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with AsyncTracker(answering.url, folder=tmp_path, linger_s=0.01) as tracker:
            ticking = asyncio.create_task(tick())
            ids = await asyncio.gather(*(tracker.durable(tracker.track_structured, "a", str(n)) for n in range(50)))
            assert all(ids) and await tracker.flush(5)
            ticking.cancel()
        return ticks

    assert asyncio.run(main()) > 10
    assert len({event["eid"] for asked in answering.asked for event in asked.events}) == 50


def command(environment: dict[str, str], lines: str, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "spoorway_tracker.cli", *arguments], input=lines, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_command_sends_lines_and_its_exit_code_tells(answering: Answering, environment: dict[str, str]) -> None:
    lines = (
        '{"verb": "structured", "category": "backup", "action": "done", "value": 12.5}\n\n'
        f'{{"schema": "{SALE}", "data": {{"a": 1}}, "true_ms": 1700000000000}}\n'
    )
    assert command(environment, lines, answering.url, "--app", "cron", "--user", "root", "--durable") == (
        0, "", "2 taken, 2 sent, 0 refused\n",
    )  # fmt: skip
    first, second = (event for asked in answering.asked for event in asked.events)
    assert (first["aid"], first["uid"], first["se_va"], second["ttm"]) == ("cron", "root", "12.5", "1700000000000")


def test_command_names_the_lines_it_refuses(answering: Answering, environment: dict[str, str]) -> None:
    lines = 'x\n[]\n{"verb": "fly"}\n{"verb": "page_view"}\n{"verb": "page_view", "url": ""}\n{"verb": "page_view", "url": "http://x/"}\n'
    code, out, errors = command(environment, lines, answering.url)
    assert (code, out) == (1, "")
    assert [line.split(":")[0] for line in errors.splitlines()] == [
        *(f"line {n}" for n in range(1, 6)),
        "1 taken, 1 sent, 5 refused",
    ]


def test_command_keeps_what_it_could_not_send_for_the_next_run(answering: Answering, environment: dict[str, str]) -> None:
    answering.answers = [status(503)]
    line = '{"verb": "page_view", "url": "http://x/"}\n'
    assert command(environment, line, answering.url, "--limit", "0.3")[0] == 1
    answering.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
    assert command(environment, "", answering.url)[0] == 0
    assert len({event["eid"] for asked in answering.asked for event in asked.events}) == 1
    assert command(environment, "", "ftp://x")[0] == 2


@pytest.mark.slow
def test_wheel_is_small_and_asks_for_nothing(tmp_path: Path) -> None:
    build = [sys.executable, "-c", "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))", str(tmp_path)]
    subprocess.run(build, cwd=SOURCES, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= 60 * 1024
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        metadata = files.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "Requires-Dist" not in metadata
    assert {name.split("/")[0] for name in names} == {"spoorway_tracker", "spoorway_tracker-1.0.0.dist-info"}
    assert any(name.endswith("py.typed") for name in names) and any(name.endswith("LICENSE") for name in names)


def programs(text: str) -> list[str]:
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


def test_samples_of_the_documents_are_true(answering: Answering, environment: dict[str, str]) -> None:
    readme, page = ((SOURCES / name).read_text("utf-8") for name in ("README.md", "../../docs/python.md"))
    environment |= {"SPOORWAY_DEVICE_KEY": "0f" * 32}
    for program in (*programs(readme), *programs(page)):
        command = [sys.executable, "-c", program.replace("http://127.0.0.1:8080", answering.url)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    events = [event for asked in answering.asked for event in asked.events]
    assert [event["e"] for event in events] == ["se", "ue", "ue", "se"] and events[0]["se_va"] == "2"
    assert (events[2]["uid"], json.loads(events[2]["ue_pr"])["data"]["data"]) == ("ada", {"sku": "DUCK-1"})
    assert answering.asked[-1].headers["spoorway-device"] == "till-3"
    (shell,) = (line.strip() for line in page.splitlines() if line.startswith("    echo "))
    shell = shell.replace("http://127.0.0.1:8080", answering.url)
    shell = shell.replace("spoorway-track ", f"{sys.executable} -m spoorway_tracker.cli ")
    assert subprocess.run(["sh", "-c", shell], env=environment, capture_output=True, timeout=60, check=False).returncode == 0
    assert answering.asked[-1].events[0]["se_ac"] == "done"


def test_names_of_the_document_exist() -> None:
    page = (SOURCES / "../../docs/python.md").read_text("utf-8")
    for module, name in re.findall(r"spoorway_tracker\.integrations\.(\w+)\.(\w+)", page):
        assert f" {name}(" in (SOURCES / f"spoorway_tracker/integrations/{module}.py").read_text("utf-8")
    taken = {name for kind in (Verbs, Http, Mqtt) for name in inspect.signature(kind).parameters}
    said = (SOURCES / "README.md").read_text("utf-8") + page
    assert set(re.findall(r"\| `(\w+)` \|\n", said)) | {"headers", "tls", "method", "gzip", "device", "key", "topic"} <= taken
    for verb in re.findall(r"`(track_\w+)`", page):
        assert hasattr(Verbs, verb)

"""Where samples of data come from, to infer a schema from: lines of JSON, or recorded events, failed ones too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple, cast

from enrich.parsing import NotJson, parse_json
from enrich.selfdescribing import as_self_describing
from protocol.seams import Json
from protocol.wire import decode_base64


class Sample(NamedTuple):
    """uri: of the schema it was sent with, if it was sent with one."""

    uri: str | None
    data: Json


def from_lines(lines: Iterable[str]) -> Iterator[Sample | str]:
    """One JSON value a line, bare or self-describing; for a line that is none, a text that says why. Empty lines are skipped."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_no_constant)
            line.encode()
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            yield f"line {number} is no JSON: {error}"
            continue
        described = as_self_describing(value)
        if isinstance(described, dict) and set(value) == {"schema", "data"}:
            yield Sample(described["schema"], described["data"])
        else:
            yield Sample(None, value)


def from_events(db: sqlite3.Connection, pattern: str, limit: int) -> Iterator[Sample]:
    """What recorded events carried with a schema whose URI fits the pattern (* and ?), the newest first, at most `limit`.

    db: has the store attached as `atomic`.
    """
    fixed = pattern.partition("*")[0].partition("?")[0].partition("[")[0]
    found = 0
    for text in _texts(db, fixed):
        for sample in _inner(text):
            if found < limit and sample.uri is not None and fnmatchcase(sample.uri, pattern):
                found += 1
                yield sample
        if found == limit:
            return


def _texts(db: sqlite3.Connection, fixed: str) -> Iterator[str | bytes]:
    rows = db.execute(
        "SELECT unstruct_event, contexts, derived_contexts FROM atomic.events WHERE instr(unstruct_event, ?1)"
        " OR instr(contexts, ?1) OR instr(derived_contexts, ?1) ORDER BY collector_tstamp DESC",
        (fixed,),
    )
    for row in rows:
        yield from (text for text in row if text is not None and fixed in text)
    rows = db.execute("SELECT parameters FROM atomic.failed_events WHERE replayed_tstamp IS NULL ORDER BY failed_tstamp DESC")
    for (text,) in rows:
        sent = cast(dict[str, str], json.loads(text))
        for name in ("ue_pr", "co"):
            if name in sent:
                yield sent[name]
        for name in ("ue_px", "cx"):
            if name in sent:
                yield decode_base64(sent[name])


def _inner(wrapped: str | bytes) -> Iterator[Sample]:
    try:
        wrapper = as_self_describing(parse_json(wrapped))
    except NotJson:
        return
    data = wrapper["data"] if isinstance(wrapper, dict) else None
    for item in data if isinstance(data, list) else [data]:
        described = as_self_describing(item)
        if isinstance(described, dict):
            yield Sample(described["schema"], described["data"])


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")

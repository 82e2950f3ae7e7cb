"""Every event claims its id, in the order of the archive -> who came first; the staged files without those who did not. Tasks.

As storage/duplicates.py has it: the same id and fingerprint is a copy, and goes; the same id with another fingerprint is another
event, and gets an id derived from both. A failed event claims its own id. All claims to one id come together in one task.

A derived id may have been taken, by somebody who derived it, or made it up. Then it matters in which order all of them came, and
`storage.duplicates.sort_out` itself is asked about those few.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from protocol.seams import Event
from spoorway.spark import staging
from spoorway.spark.engine import Keys, Told
from spoorway.spark.staging import Job
from storage.duplicates import DUPLICATE, sort_out, synthetic_id
from storage.lake import EVENTS, FAILED
from storage.lake.parquet import COMPRESSION, ROW_GROUP, pa, pc, pq
from storage.rows import CONTEXTS, json_text


class Claim(NamedTuple):
    """id: "e/" and that of an event, "f/" and that of a failed event. place: stretch << 32 | its number in it.

    file, row: where it lies among the files of its stretch.
    """

    id: str
    fingerprint: str | None
    place: int
    file: int
    row: int


CLAIMS = pa.schema(
    [("id", pa.string()), ("fingerprint", pa.string()), ("place", pa.int64()), ("file", pa.int32()), ("row", pa.int32())]
)
BY_ID = Keys(CLAIMS, ("id",), ("id", "place"))


class Verdict(NamedTuple):
    """About one row. id: its own; name: the id that it gets; stays: False = it is a copy.

    late: counts more than a verdict that is not.
    """

    stretch: int
    file: int
    row: int
    id: str
    name: str
    stays: bool
    late: bool = False


VERDICTS = pa.schema(
    [
        ("stretch", pa.int32()),
        ("file", pa.int32()),
        ("row", pa.int32()),
        ("id", pa.string()),
        ("name", pa.string()),
        ("stays", pa.bool_()),
        ("late", pa.bool_()),
    ]
)
BY_STRETCH = Keys(VERDICTS, ("stretch",), ("stretch", "file", "row", "late"))


def read(job: Job, stretch: int) -> Iterator[Any]:
    """The claims of a stretch, as `enriching` staged them: tables of pyarrow."""
    return staging.tables(job.objects(), job.name("claims", stretch))


def judge(job: Job, part: int, batches: Iterator[Any]) -> Iterator[Told]:
    """Stages the verdicts. Answers with the ids that were derived, and of which."""
    found = list(judged(batches))
    if found:
        stage(job, part, found)
        yield {"part": part, "derived": [[one.name, one.id] for one in found if one.stays]}


def stage(job: Job, part: int, found: Iterable[Verdict]) -> None:
    """Under the part's number, for `verdicts`."""
    table = pa.Table.from_pylist([verdict._asdict() for verdict in found], VERDICTS)
    staging.write(job.objects(), job.name("verdicts", part), table)


def judged(batches: Iterable[Any]) -> Iterator[Verdict]:
    """Of claims sorted by id and place: a verdict about each that is not the first to its id."""
    last, seen = None, set[str | None]()
    for batch in batches:
        ids = batch.column("id")
        # Nearly every id is claimed once: looked at one by one are only those that are like the one before.
        alike = pc.equal(ids[1:], ids[:-1]).to_pylist()
        if len(ids) and ids[0].as_py() == last:
            alike = [True, *alike]
        else:
            alike, seen = [False, *alike], {batch.column("fingerprint")[0].as_py()} if len(ids) else seen
        for at in (at for at, same in enumerate(alike) if same):
            claim = Claim(*(batch.column(name)[at].as_py() for name in CLAIMS.names))
            if at and not alike[at - 1]:
                seen = {batch.column("fingerprint")[at - 1].as_py()}
            new = claim.fingerprint not in seen
            seen.add(claim.fingerprint)
            name = f"e/{synthetic_id(claim.id[2:], claim.fingerprint)}" if new else ""
            yield Verdict(claim.place >> 32, claim.file, claim.row, claim.id, name, new)
        if len(ids):
            last = ids[-1].as_py()
            if not alike[-1]:
                seen = {batch.column("fingerprint")[len(ids) - 1].as_py()}


def among(job: Job, ids: Sequence[str], stretch: int) -> Told:
    """Who claims one of these ids in this stretch."""
    wanted = pa.array(ids, pa.string())
    found = [row for table in read(job, stretch) for row in table.filter(pc.is_in(table["id"], wanted)).to_pylist()]
    return {"claims": [[row[name] for name in CLAIMS.names] for row in found]}


def sorted_out(claims: Iterable[Claim]) -> tuple[list[Verdict], set[str]]:
    """Verdicts about all of them, in the order they came, as one machine gives them; and every id it looked at."""
    looked: set[str] = set()
    known: dict[str, str | None] = {}
    verdicts: list[Verdict] = []

    def stored(ids: Sequence[str]) -> Mapping[str, str | None]:
        looked.update(ids)
        return {one: known[one] for one in ids if one in known}

    for claim in sorted(claims, key=lambda one: one.place):
        event: Event = {"event_id": claim.id[2:]}
        if claim.fingerprint is not None:
            event["event_fingerprint"] = claim.fingerprint
        kept, _ = sort_out([event], stored)
        name = ""
        for one in kept:
            known[one["event_id"]] = claim.fingerprint  # pyright: ignore[reportTypedDictNotRequiredAccess]
            name = f"e/{one['event_id']}"  # pyright: ignore[reportTypedDictNotRequiredAccess]
        verdicts.append(Verdict(claim.place >> 32, claim.file, claim.row, claim.id, name, bool(kept), True))
    return verdicts, looked


def verdicts(job: Job, part: int) -> Iterator[Any]:
    """Those of a part, as staged: tables of pyarrow."""
    return staging.tables(job.objects(), job.name("verdicts", part))


def carried_out(job: Job, part: int, batches: Iterator[Any]) -> Iterator[Told]:
    """Of sorted rows of VERDICTS: each file that a verdict is about, staged once more. Answers what it is now."""
    objects = job.objects()
    rows = (Verdict(**row) for batch in batches for row in batch.to_pylist())
    for (stretch, file), some in groupby(rows, lambda one: (one.stretch, one.file)):
        last = {one.row: one for one in some}  # of two about a row the late one comes last
        kind = FAILED if next(iter(last.values())).id.startswith("f/") else EVENTS
        body = objects.get(job.name(kind, stretch, file))
        changed = (_lines if kind == FAILED else _parquet)(body, last)
        gone = sum(not one.stays for one in last.values())
        name = job.name(f"{kind}-once", stretch, file)
        objects.put(name, changed)
        yield {"stretch": stretch, "file": file, "gone": gone, "bytes": len(changed), "name": name}


def _lines(body: bytes, verdicts: Mapping[int, Verdict]) -> bytes:
    lines = enumerate(gzip.decompress(body).splitlines(keepends=True))
    return gzip.compress(b"".join([line for row, line in lines if row not in verdicts or verdicts[row].stays]), 6, mtime=0)


def _parquet(body: bytes, verdicts: Mapping[int, Verdict]) -> bytes:
    table = pq.read_table(pa.BufferReader(body))
    renamed = {row: one for row, one in verdicts.items() if one.stays and one.name != one.id}
    if renamed:
        ids, derived = table["event_id"].to_pylist(), table["derived_contexts"].to_pylist()
        for row, one in renamed.items():
            ids[row] = one.name[2:]
            derived[row] = noted(derived[row], one.id[2:])
        for name, values in (("event_id", ids), ("derived_contexts", derived)):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), pa.array(values, pa.string()))
    stays = [row not in verdicts or verdicts[row].stays for row in range(table.num_rows)]
    out = pa.BufferOutputStream()
    pq.write_table(table.filter(pa.array(stays)), out, row_group_size=ROW_GROUP, **COMPRESSION)
    return out.getvalue().to_pybytes()  # type: ignore[no-any-return]


def noted(entities: str | None, original: str) -> str:
    """The column derived_contexts with one entity more, which says where the id comes from; the others as they are."""
    note = json_text({"schema": DUPLICATE, "data": {"originalEventId": original}})
    if entities is None:
        return f'{{"schema":"{CONTEXTS}","data":[{note}]}}'
    return f"{entities.removesuffix(']}')},{note}]}}"


__all__ = [
    "BY_ID",
    "BY_STRETCH",
    "CLAIMS",
    "VERDICTS",
    "Claim",
    "Verdict",
    "among",
    "carried_out",
    "judge",
    "judged",
    "noted",
    "read",
    "sorted_out",
    "stage",
    "verdicts",
]

"""email_agent and the views of openings and clicks: a labelled corpus, from URLs through enrichment and SQLite to the views."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from enrich.enrichments import defaults, email_agent
from enrich.pipeline import Options, Pipeline
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Position, RawPayload
from spoorway.pixel import Pixel, email_click, email_open
from spoorway.world import World
from storage.targets import Batch, sqlite

CORPUS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("email_agents_corpus.json").read_text("utf-8"))["groups"]
PAGE = (Path(__file__).parents[3] / "docs/email.md").read_text("utf-8")
LABELS = ("human_likely", "privacy_proxy", "prefetch", "scanner", "unknown")
SENT = 1_768_471_200_000
PIXEL = Pixel("https://track.example.com", "news", key=bytes(32))


def payload(number: int, group: dict[str, Any], agent: str, ip: str, after_s: float, copy: str, link: str = "") -> RawPayload:
    """One request, as the gateway records it."""
    if link or group["kind"] == "click":
        name = link or "offer"
        event = email_click("spring", copy, "r", SENT, name, honeypot=name == "honeypot")
        url = PIXEL.click(f"https://example.com/{name}", event)
    else:
        url = PIXEL.open(email_open("spring", copy, "r", SENT))
    headers = [("User-Agent", agent)] if agent else []
    headers += [(name, value) for name, value in group.get("headers", [])]
    headers += [(":method", "HEAD")] if group.get("method") == "HEAD" else []
    where = urlsplit(url)
    return RawPayload(
        f"{number:032x}", SENT + round(after_s * 1000), "http", where.path, where.query, headers=tuple(headers), ip=ip
    )


def cases() -> Iterator[tuple[dict[str, Any], RawPayload, str, str]]:
    """Group, request, copy, label; each copy's in order of time."""
    number = 0
    for group in CORPUS:
        for agent in group["agents"]:
            for ip in group["ips"]:
                steps = group.get("steps") or [[after_s, "", group["label"]] for after_s in group["after_s"]]
                for place, (after_s, link, label) in enumerate(steps):
                    number += 1
                    copy = f"{group['id']}/{agent}/{ip}/{'' if group['kind'] == 'visit' else place}"[:255]
                    yield group, payload(number, group, agent, ip, after_s, hash_of(copy), link), copy, label


def hash_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> sqlite3.Connection:
    """The store with the whole corpus in it; table truth: event_id, wanted, group, blind."""
    file = tmp_path_factory.mktemp("emails") / "events.db"
    pipeline, target = Pipeline(Options(), bundled, defaults(World())), sqlite.Plugin(sqlite.Config(str(file)), bundled)
    events: list[Any] = []
    truth: list[tuple[str, str, str, bool, str | None]] = []
    for group, request, _, label in cases():
        (event,) = pipeline.outcomes(request, request.received_ms)
        assert isinstance(event, dict), event
        events.append(event)
        truth.append((event["event_id"], label, group["id"], group.get("blind", False), group.get("fetched_at")))
    target.commit(Batch(events, [], {"lane": Position(1, 1, len(events))}, len(events)))
    target.close()
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE truth (event_id PRIMARY KEY, wanted, made, blind, fetched_at)")
    db.executemany("INSERT INTO truth VALUES (?, ?, ?, ?, ?)", truth)
    db.execute(
        "CREATE TABLE told AS SELECT event_id, label, rule, fetched_at, machine FROM email_opens"
        " UNION ALL SELECT event_id, label, rule, fetched_at, machine FROM email_clicks"
    )
    return db


def test_every_label_is_right_for_99_of_100_and_readers_are_believed(labelled: sqlite3.Connection) -> None:
    rows = labelled.execute("SELECT wanted, label, made, rule FROM truth JOIN told USING (event_id) WHERE NOT blind").fetchall()
    assert len(rows) > 1_500 and {row[0] for row in rows} == set(LABELS)
    wrong = Counter((made, wanted, label, rule) for wanted, label, made, rule in rows if wanted != label)
    report: list[str] = []
    for one in LABELS:
        right = sum(wanted == label == one for wanted, label, *_ in rows)
        precision = right / sum(label == one for _, label, *_ in rows)
        recall = right / sum(wanted == one for wanted, *_ in rows)
        report.append(f"{one:14} {precision:8.4f} {recall:8.4f} {sum(wanted == one for wanted, *_ in rows):6}")
        assert precision >= 0.99 and recall >= 0.99, (one, precision, recall, wrong)
    print("\n".join(["label          precision  recall  cases", *report]))
    humans = [label for wanted, label, *_ in rows if wanted == "human_likely"]
    assert sum(label != "human_likely" for label in humans) / len(humans) <= 0.005, wrong


def test_what_the_rules_cannot_see_is_known(labelled: sqlite3.Connection) -> None:
    """If one of these is seen one day, it is no longer blind, and counts."""
    rows = labelled.execute("SELECT made, label = wanted FROM truth JOIN told USING (event_id) WHERE blind").fetchall()
    assert {made for made, _ in rows} == {"scanner-in-disguise", "two-links-at-once"}
    assert not any(seen for _, seen in rows)


def test_proxies_say_whether_a_reader_opened(labelled: sqlite3.Connection) -> None:
    rows = labelled.execute(
        "SELECT DISTINCT made, t.fetched_at, told.fetched_at, machine FROM truth AS t JOIN told USING (event_id)"
        " WHERE wanted IN ('privacy_proxy', 'prefetch') AND t.fetched_at IS NOT NULL"
    ).fetchall()
    assert sorted(rows) == [
        ("apple-privacy", "delivery", "delivery", 1),
        ("gmail-prefetch", "delivery", "delivery", 1),
        ("gmail-proxy", "opening", "opening", 0),
        ("yahoo-proxy", "opening", "opening", 0),
    ]


def test_campaigns_are_counted_with_and_without_machines(labelled: sqlite3.Connection) -> None:
    labelled.row_factory = sqlite3.Row
    (row,) = labelled.execute("SELECT * FROM email_campaigns").fetchall()
    told = Counter(labelled.execute("SELECT label FROM email_opens").fetchall())
    assert (row["app_id"], row["campaign"]) == ("news", "spring")
    for noun, view in (("open", "email_opens"), ("click", "email_clicks")):
        labels = Counter(one["label"] for one in labelled.execute(f"SELECT label FROM {view}"))
        assert {label: row[f"{noun}s_{label}"] for label in LABELS} == {label: labels[label] for label in LABELS}
        assert row[f"{noun}s"] == labels.total()
        (people,) = labelled.execute(f"SELECT count(*) AS n, count(DISTINCT message) AS m FROM {view} WHERE NOT machine")
        assert (row[f"{noun}s_without_machines"], row[f"messages_{noun}ed_without_machines"]) == (people["n"], people["m"])
    assert told.total() == row["opens"]


@pytest.mark.parametrize("query", re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL), ids=["campaigns", "links", "rules"])
def test_queries_of_the_document_have_answers(labelled: sqlite3.Connection, query: str) -> None:
    assert labelled.execute(query).fetchall()


def test_the_document_tells_how_many_cases_there_are() -> None:
    counted = Counter(label for group, _, _, label in cases() if not group.get("blind"))
    told = {
        label: int(number.replace(",", ""))
        for label, number in re.findall(r"^\| `(\w+)` \| ([\d,]+) \| 1.00", PAGE, re.MULTILINE)
    }
    assert told == dict(counted) and f"has {counted.total():,} cases" in PAGE


def test_nothing_but_emails_is_labelled() -> None:
    made = email_agent.Plugin(email_agent.Config(), World())
    raw: Any = None
    assert made({"event": "page_view"}, raw) == {}
    assert made({"unstruct_event": {"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": {}}}, raw) == {}


def test_what_was_followed_is_merged_in_any_order() -> None:
    one, other = frozenset({email_agent.Followed(1, "a")}), frozenset({email_agent.Followed(n, "b") for n in range(40)})
    merged = email_agent._merged
    assert merged(one, other) == merged(other, one) == merged(merged(one, other), other)
    assert email_agent._read(email_agent._written(other)) == other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a list of email agents"),
        ('{"date": "x"}', "not a list of email agents"),
        (
            '{"date": "x", "agents": [{"text": "a", "label": "robot"}], "readers": [], "networks": [], "headers": []}',
            "no label 'robot'",
        ),
        (
            '{"date": "x", "agents": [], "readers": [], "headers": [], "networks": [{"network": "1.2.3.4/8", "label": "x"}]}',
            "host",
        ),
    ],
)
def test_a_list_of_the_users_own_is_checked_at_the_start(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "agents.json"
    file.write_text(text)
    with pytest.raises((ConfigurationError, ValueError), match=message):
        email_agent.Plugin(email_agent.Config(database=str(file)), World())


@pytest.mark.parametrize("options", [{"soon_s": -1}, {"burst_links": 1}, {"copies": 0}])
def test_options_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="email_agent"):
        email_agent.Config(**options)


def test_every_entry_of_the_list_says_where_it_is_from() -> None:
    path = Path(email_agent.__file__).parents[1] / "data/email_agents.json"
    document = json.loads(path.read_text("utf-8"))
    assert all(one["source"] for name in ("agents", "networks", "headers") for one in document[name])
    assert document["date"] >= "2026-11-22"
    rules = email_agent.read(path.read_bytes(), lambda _: None)
    met = {found.rule for group in CORPUS for ip in group["ips"] if (found := rules.network(ip))}
    assert met == {f"network: {one['network']}" for one in document["networks"]}  # the corpus has a case of each

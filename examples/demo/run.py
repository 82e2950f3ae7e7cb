"""The demo: `spoorway run` in a fresh folder, fed with real events, then five questions in SQL.

    make demo            (or: python examples/demo/run.py [FOLDER])

A recorded visit to a website comes in through the file transport; sensors, a live app and a handful of broken requests
come over HTTP; 20 simulated boards over MQTT and one over a serial port, with losses and restarts. At the end: where each
event is, and where to look next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_S = 20
SETTLE_S = 30

QUESTIONS = (
    (
        "Who came to the shop, from where, and what did they do?",
        """
        select coalesce(max(mkt_source), max(refr_urlhost), 'direct') as came_from, count(distinct domain_sessionid) as visits,
               sum(event = 'page_view') as pages, sum(event = 'page_ping') * 5 as seconds_of_attention,
               sum(event_name = 'link_click') as clicks, min(derived_tstamp) as first_seen
        from atomic.events
        where name_tracker is not null and page_urlhost is not null and domain_userid is not null
        group by domain_userid order by first_seen
        """,
    ),
    (
        "What was the weather like, month by month? (a typed view over self-describing sensor readings)",
        """
        select substr(e.derived_tstamp, 1, 7) as month, count(*) as readings, round(avg(w.temperature_max_celsius), 1) as warmest,
               round(avg(w.temperature_min_celsius), 1) as coldest, round(sum(w.precipitation_mm)) as rain_mm
        from atomic.io_spoorway_weather_reading_1 w join atomic.events e on e.event_id = w.root_id
        group by 1 order by 1 limit 6
        """,
    ),
    (
        "Which sensors lost readings, how often did they start again, and how sure is the time? (no clock on any of them)",
        """
        select device, boots, events, missing, duplicates, by_difference as dated_exactly,
               by_anchored + by_bounded as dated_between, widest_ms / 1000 as widest_s
        from atomic.device_health order by missing desc, device limit 5
        """,
    ),
    (
        "Exactly which readings are missing? (the first four runs)",
        """
        select device, boot_id, first_missing, last_missing, after_tstamp, before_tstamp
        from atomic.device_gaps order by device, boot_id, first_missing limit 4
        """,
    ),
    (
        "What could not be understood, and why?",
        """
        select kind, count(*) as events, min(first_reason) as for_instance
        from atomic.failed_events group by kind order by events desc
        """,
    ),
)


def spoorway(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "spoorway", *arguments]


def show(title: str) -> None:
    print(f"\n── {title} " + "─" * max(3, 110 - len(title)), flush=True)


def start(data: Path) -> tuple[subprocess.Popen[str], str, str]:
    """The product on ports that are free; its process, where trackers send, where metrics are."""
    config = data / "spoorway.toml"
    config.write_text(
        "[gateway.transports.http]\nport = 0\n[gateway.transports.mqtt]\nport = 0\n"
        f"[gateway.transports.serial]\nports = [{json.dumps(str(data / 'boards' / '*'))}]\n"
        f"[gateway.transports.file]\npath = {json.dumps(str(HERE / 'website-visit.ndjson'))}\n"
        "[admin]\nport = 0\n"
    )
    began = time.monotonic()
    process = subprocess.Popen(
        spoorway("run", "--data", str(data), "--config", str(config)), stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")
        if line == "ready\n":
            break
    else:
        raise SystemExit("spoorway did not start")
    print(f"in {time.monotonic() - began:.1f} s")
    state = json.loads((data / "running.json").read_text())
    return process, state["urls"]["http"][0], state["admin"]


def settled(admin: str) -> bool:
    """Nothing arrives and nothing waits any more."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    values = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    taken = values.get('spoorway_target_payloads_taken_total{target="sqlite"}', -1)
    return values["spoorway_journal_payloads_accepted_total"] == taken


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "demo-data", help="made anew (default: demo-data)")
    data: Path = parser.parse_args().folder.resolve()
    if data.exists():
        if not (data / "spoorway.toml").is_file():
            raise SystemExit(f"{data} is not a folder of this demo; name another one")
        shutil.rmtree(data)
    data.mkdir(parents=True)

    show("spoorway run, in a fresh folder")
    process, url, admin = start(data)
    try:
        show("a recorded website visit, a year of sensor readings, a live app, and what goes wrong in real life")
        for program in ("sensors.py", "app.py", "broken.py"):
            subprocess.run([sys.executable, str(HERE / program), url], check=True, cwd=HERE)
        show("sensors without a clock, 20 over MQTT and one at a serial port: losses, copies, restarts (spoorway simulate)")
        faults = ("--fault", "gap", "--fault", "duplicate", "--fault", "reboot", "--fault", "reorder")
        for way in (("--over", "mqtt", "--devices", "20"), ("--over", "serial", "--to", str(data / "boards"), "--first", "21")):
            many = ("--devices", "1", "--events", "30") if "serial" in way else ("--events", "100")
            subprocess.run(spoorway("simulate", "greenhouse", "--data", str(data), *way, *many, *faults), check=True, cwd=ROOT)
        end = time.monotonic() + SETTLE_S
        while not settled(admin):
            if time.monotonic() > end:
                raise SystemExit("events are still pending")
            time.sleep(0.1)
        for title, question in QUESTIONS:
            show(title)
            subprocess.run(spoorway("sql", "--data", str(data), " ".join(question.split())), check=True, cwd=ROOT)
        show("all of it as one page (spoorway report)")
        page = ("--output", str(data / "report.html"), "--since", "2026-01-01")  # the visit was recorded then
        subprocess.run(spoorway("report", "--data", str(data), *page), check=True, cwd=ROOT)
        show("Is every event accounted for? (spoorway doctor)")
        subprocess.run(spoorway("doctor", "--data", str(data), "--config", str(data / "spoorway.toml")), check=True, cwd=ROOT)
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
    where = data.relative_to(Path.cwd()) if data.is_relative_to(Path.cwd()) else data
    show("where to look next")
    print(
        f"  {where}/report.html\n"
        f"  .venv/bin/spoorway ask list\n"
        f"  .venv/bin/spoorway sql --data {where} 'select event_name, count(*) from atomic.events group by 1'\n"
        f"  .venv/bin/spoorway failed list --data {where}\n"
        f"  .venv/bin/spoorway tail --data {where} --no-follow\n"
        f"  .venv/bin/spoorway run                       # and point a tracker at http://127.0.0.1:8080\n"
        f"  docs/sql.md, docs/http.md, docs/devices.md, docs/enrichment.md"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes the demo's weather series: one year of the daily Seattle readings in vega_datasets, with times that say what they mean.

    python tools/make_sensor_slice.py [--year 2015] [--check]

Source: NOAA, public domain, as packaged by vega_datasets 0.9.0 (MIT). Only this script needs that package and a time zone
database; the demo reads the CSV. --check writes nothing and fails when the committed file is another.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

SEATTLE = ZoneInfo("America/Los_Angeles")
OUT = Path(__file__).resolve().parent.parent / "examples" / "demo" / "seattle-weather.csv"
COLUMNS = (
    "read_at",  # UTC; the end of the local day that the reading sums up
    "period_seconds",  # 23, 24 or 25 hours
    "temperature_min_celsius",
    "temperature_max_celsius",
    "precipitation_mm",
    "wind_metres_per_second",
    "condition",
)


def source() -> Path:
    spec = importlib.util.find_spec("vega_datasets")
    if spec is None or spec.origin is None:
        sys.exit("vega_datasets is not installed: pip install vega-datasets==0.9.0")
    return Path(spec.origin).parent / "_data" / "seattle-weather.csv"


def slice_of(year: int) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    with source().open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if not row["date"].startswith(f"{year}/"):
                continue
            day = datetime.strptime(row["date"], "%Y/%m/%d").replace(tzinfo=SEATTLE)
            begins, ends = day.astimezone(UTC), (day + timedelta(days=1)).astimezone(UTC)
            seconds = int((ends - begins).total_seconds())
            readings = (row[name] for name in ("temp_min", "temp_max", "precipitation", "wind", "weather"))
            writer.writerow([f"{ends:%Y-%m-%dT%H:%M:%SZ}", seconds, *readings])
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--year", type=int, default=2012)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = slice_of(options.year)
    if not options.check:
        OUT.write_text(text, "utf-8")
    elif OUT.read_text("utf-8") != text:
        sys.exit(f"{OUT.name} is not what tools/make_sensor_slice.py writes")


if __name__ == "__main__":
    main()

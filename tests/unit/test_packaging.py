"""The wheel holds our rooms and nothing else, and what it holds is enough to run."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wheel_holds_only_our_rooms_and_their_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"protocol", "gateway", "enrich", "storage", "spoorway"}
    assert {"protocol/columns.json", "protocol/parameters.json", "spoorway/sample.toml", "protocol/py.typed"} <= set(names)
    assert {"enrich/data/referers.json", "enrich/data/bots.json"} <= set(names)
    assert "protocol/schemas/com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4" in names
    assert not [n for n in names if "vectors" in n or n.startswith("tests")]

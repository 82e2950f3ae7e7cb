"""The hand-written lists are complete, and what is generated from them is up to date."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from protocol import schemas
from protocol.seams import Event
from protocol.tables import COLUMN_NAMES, COLUMNS, EVENT_CODES, PARAMETERS

ROOT = Path(__file__).parents[2]


def test_counts_are_the_protocols() -> None:
    assert len(COLUMNS) == 131
    assert len(PARAMETERS) == 89
    assert Counter(p.conversion == "none" for p in PARAMETERS.values()) == {False: 75, True: 14}


def test_every_column_a_parameter_fills_exists_and_the_winner_of_a_conflict_too() -> None:
    for parameter in PARAMETERS.values():
        assert set(parameter.columns) <= set(COLUMN_NAMES)
        if parameter.yields_to is not None:
            assert PARAMETERS[parameter.yields_to].columns == parameter.columns


def test_event_type_has_exactly_the_columns() -> None:
    assert tuple(Event.__annotations__) == COLUMN_NAMES


def test_generated_blocks_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools/generate.py"), "--check"]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_payload_data_schemas_allow_exactly_the_parameters_of_their_version() -> None:
    for addition in range(5):
        document = schemas.bundled(f"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-{addition}")
        assert document is not None
        keys = set(document["items"]["properties"])  # type: ignore[index, call-overload, arg-type]
        known = {p.name for p in PARAMETERS.values() if p.post_since is not None and p.post_since <= f"1-0-{addition}"}
        assert keys == known


def test_every_bundled_schema_says_where_it_lies() -> None:
    for uri in schemas.uris():
        document = schemas.bundled(uri)
        assert document is not None
        own = document["self"]
        assert isinstance(own, dict)
        assert uri == f"iglu:{own['vendor']}/{own['name']}/{own['format']}/{own['version']}"


def test_event_codes_are_eight() -> None:
    assert len(EVENT_CODES) == 8

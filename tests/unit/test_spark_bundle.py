"""The bundle holds all that the job must know, and no more; `spoorway spark` says how it is run."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from enrich.enrichments import RawEvent
from protocol.seams import ConfigurationError, RawPayload
from spoorway import __version__, config
from spoorway.cli import main
from spoorway.spark import bundle
from spoorway.spark.bundle import Place

ROOT = Path(__file__).parents[2]
SCHEMA = {
    "$schema": "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#",
    "self": {"vendor": "com.acme", "name": "door", "format": "jsonschema", "version": "1-0-0"},
    "type": "object",
    "properties": {"open": {"type": "boolean"}},
    "additionalProperties": False,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text("def enrich(event, raw):\n    return {'se_label': 'from the script'}\n")
    (tmp_path / "data/schemas/com.acme/door/jsonschema").mkdir(parents=True)
    (tmp_path / "data/schemas/com.acme/door/jsonschema/1-0-0").write_text(json.dumps(SCHEMA))
    (tmp_path / "more/com.acme/gate/jsonschema").mkdir(parents=True)
    (tmp_path / "more/com.acme/gate/jsonschema/1-0-0").write_text(json.dumps(SCHEMA).replace("door", "gate"))
    hook = Path(ROOT / "enrich/mappings/esphome.toml").read_text("utf-8").replace("/io.spoorway.esphome/v1", "/com.acme/v1")
    (tmp_path / "hook.toml").write_text(hook)
    file = tmp_path / "spoorway.toml"
    file.write_text(
        f'data = "{tmp_path / "data"}"\n[archive]\nurl = "s3://events/site"\nregion = "eu-central-1"\n'
        f'[enrich]\nschemas = ["{tmp_path / "more"}"]\nwebhooks = ["{tmp_path / "hook.toml"}"]\n'
        f'[enrich.enrichments.pii]\nsalt = "0123456789abcdef0123456789abcdef"\ncolumns = ["user_id"]\n'
        f'[enrich.enrichments.mine]\nuse = "script_python"\nfile = "{tmp_path / "script.py"}"\n'
        '[enrich.enrichments.device_time]\n[storage.targets.pg]\nuse = "postgres"\ndsn = "postgresql://secret@nowhere"\n'
        '[storage.targets.lake]\nuse = "s3"\nurl = "s3://events/lake"\nendpoint = "https://minio.example"\n'
        '[storage.targets.text]\nuse = "s3"\nurl = "s3://events/text"\nformat = "tsv"\n'
    )
    return file


def packed(file: Path, to: str = "s3://events/rebuilt") -> Path:
    settings = config.load(file, {}, {})
    bundle.pack(settings, settings.archive, Place(to), False, path := file.with_name("bundle.zip"))
    return path


def test_another_machine_has_all_of_it(file: Path) -> None:
    path = packed(file)
    for one in (
        "script.py",
        "spoorway.toml",
        "more/com.acme/gate/jsonschema/1-0-0",
        "data/schemas/com.acme/door/jsonschema/1-0-0",
    ):
        (file.parent / one).unlink()
    enriching = bundle.opened(path)
    assert [step.name for step in enriching.steps] == ["pii", "mine", "device_time"]
    assert enriching.remembering == {2: "device_time"}
    payload = RawPayload("0" * 32, 0, "http", "/i")
    assert enriching.steps[1].enrichment({}, RawEvent(payload, 0, {})) == {"se_label": "from the script"}
    for name in ("door", "gate"):
        data = json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0",
                           "data": {"schema": f"iglu:com.acme/{name}/jsonschema/1-0-0", "data": {"open": True}}})  # fmt: skip
        raw = RawEvent(payload, 0, {"e": "ue", "ue_pr": data, "p": "web", "tv": "t"})
        event = enriching.pipeline().outcome(raw, 0)
        assert isinstance(event, dict) and event["event_name"] == name, event


def test_it_is_for_its_owner_and_knows_only_what_it_must(file: Path) -> None:
    path = packed(file)
    assert path.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(path) as zipped:
        text = b"".join(zipped.read(name) for name in zipped.namelist()).decode()
    assert "0123456789abcdef" in text and "postgresql" not in text
    assert not [left for left in path.parent.iterdir() if left.name.startswith(".bundle-")]


def test_a_folder_is_named_as_all_machines_know_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    order = bundle.read(packed(file, "lake"))
    assert order.to.url == str(file.parent / "lake")
    assert order.source == Place("s3://events/site", region="eu-central-1")


def test_another_version_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(file)
    monkeypatch.setattr(bundle, "__version__", "99.0")
    with pytest.raises(ConfigurationError, match=f"made by Spoorway {re.escape(__version__)}, and this machine has 99.0"):
        bundle.read(path)


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_what_is_no_bundle_is_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ConfigurationError, match="no bundle of `spoorway spark`"):
        bundle.read(tmp_path / "x.zip")


def test_an_enrichment_that_remembers_by_itself_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    text = file.read_text().replace('use = "script_python"', 'use = "spark_test.mine"')
    file.write_text(re.sub(r"file = .*\n", "", text))
    (file.parent / "spark_test").mkdir()
    (file.parent / "spark_test/mine.py").write_text(
        "import dataclasses\n\n@dataclasses.dataclass(frozen=True)\nclass Config:\n    pass\n\n\nclass Plugin:\n"
        "    def __init__(self, config, world):\n        world.memory('mine', None, 1)\n"
    )
    with pytest.raises(ConfigurationError, match="mine: the Spark job shares the memory of device_time and email_agent"):
        packed(file)


@pytest.mark.parametrize(
    ("master", "one"), [("local", True), ("local[*,4]", True), ("local-cluster[2,1,1024]", False), ("yarn", False)]
)
def test_java_is_told_only_where_spark_is_one_machine(
    file: Path, capsys: pytest.CaptureFixture[str], master: str, one: bool
) -> None:
    job = ["spark", "--to", "lake", "--json", "--config", str(file), "--out", str(file.parent / "job")]
    assert main([*job, "--master", master]) == 0
    command: list[str] = json.loads(capsys.readouterr().out)["command"]
    java = ["--conf", "spark.driver.defaultJavaOptions=-XX:TieredStopAtLevel=1"]
    assert command[: command.index("--files")] == ["spark-submit", "--master", master, *(java if one else [])]


def test_the_command_packs_and_prints_what_to_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "job"
    config_ = ["--config", str(file), "--out", str(out)]
    assert main(["spark", "--to", "lake", *config_]) == 0
    job = f"--files {out}/spoorway-bundle.zip {out}/spoorway_spark.py spoorway-bundle.zip"
    assert capsys.readouterr().out == f"spark-submit {job}\n"
    assert bundle.read(out / "spoorway-bundle.zip").to == Place("s3://events/lake", "https://minio.example")
    assert "from spoorway.spark.job import main" in (out / "spoorway_spark.py").read_text()

    more = ["--environment", "env.tar.gz", "--master", "yarn", "--archive", "s3://other/x", "--partial"]
    assert main(["spark", "--to", "s3://events/new", *more, *config_]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "export PYSPARK_PYTHON=./environment/bin/python",
        f"spark-submit --master yarn --archives 'env.tar.gz#environment' {job}",
    ]
    order = bundle.read(out / "spoorway-bundle.zip")
    assert (order.source.url, order.to, order.partial) == ("s3://other/x", Place("s3://events/new", region="eu-central-1"), True)

    assert main(["spark", "--to", "lake", "--json", *config_]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["command"] == f"spark-submit {job}".split(" ") and told["files"] == 1


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("pg", "target pg is no s3 target"),
        ("text", "target text keeps TSV alone"),
        ("lkae", "no s3 target 'lkae' (there is: lake, text); or s3://BUCKET/PREFIX, or a folder such as ./lkae"),
    ],
)
def test_a_place_that_cannot_be_is_told(file: Path, capsys: pytest.CaptureFixture[str], to: str, why: str) -> None:
    assert main(["spark", "--to", to, "--config", str(file), "--out", str(file.parent / "job")]) == 1
    assert why in capsys.readouterr().err


def test_the_modules_of_the_tasks_know_no_spark() -> None:
    """Only cluster.py does, so that everything else runs and is tested without."""
    assert "pyspark" not in sys.modules
    for path in (ROOT / "spoorway/spark").glob("*.py"):
        assert ("pyspark" in path.read_text().lower()) <= (path.name in ("cluster.py", "job.py", "__init__.py")), path.name


def test_every_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["spark", "--help"])
    page = (ROOT / "docs/spark.md").read_text("utf-8")
    for option in set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help", "--config", "--data", "--json"}:
        assert f"`{option}`" in page, option

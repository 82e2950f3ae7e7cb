"""The configuration: where values come from, what mistakes are answered with, and that the sample says what is."""

from pathlib import Path

import pytest

from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands.config import effective
from spoorway.config import Settings, load, sample
from spoorway.world import World


def settings(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, **flags: object) -> Settings:
    file = tmp_path / "spoorway.toml"
    file.write_text(text)
    return load(file, {name.replace("__", "."): value for name, value in flags.items()}, environ or {})


def options(found: Settings) -> dict[str, object]:
    return {place: value for place, value, _ in effective(found)}


def test_sample_names_every_option_with_its_default(tmp_path: Path) -> None:
    uncommented = "\n".join(line.removeprefix("#: ") for line in sample().splitlines())
    from_sample = settings(tmp_path, uncommented)
    assert options(from_sample) == options(settings(tmp_path))
    tables = {"click_ids", "paths", "limits", "headers", "registries"}
    named = {place for place in from_sample.sources if not tables & set(place.split("."))}
    every = {place for place in options(settings(tmp_path)) if place.rsplit(".", 1)[-1] not in tables}
    assert named == every


def test_sample_as_written_changes_nothing(tmp_path: Path) -> None:
    assert settings(tmp_path, sample()).sources == {}


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "[admin]\nport = 1\n[journal]\nmax_bytes = 1\nmin_free_bytes = 1\n"
    environ = {"SPOORWAY__ADMIN__PORT": "2", "SPOORWAY__JOURNAL__MAX_BYTES": "2"}
    found = settings(tmp_path, text, environ, admin__port=3)
    assert (found.admin.port, found.journal.max_bytes, found.journal.min_free_bytes) == (3, 2, 1)
    assert found.sources["admin.port"] == "flag"
    assert found.sources["journal.max_bytes"] == "environment"
    assert found.sources["journal.min_free_bytes"].startswith("file ")


def test_environment_value_may_lie_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "port"
    secret.write_text("99\n")
    assert settings(tmp_path, environ={"SPOORWAY__ADMIN__PORT_FILE": str(secret)}).admin.port == 99


def test_override_of_one_default_keeps_the_others(tmp_path: Path) -> None:
    found = settings(tmp_path, environ={"SPOORWAY__ENRICH__ENRICHMENTS__ANON_IP__OCTETS": "2"})
    names = ["referer", "campaign", "event_fingerprint", "anon_ip", "device_time", "email_agent"]
    assert [i.name for i in found.enrichments()] == names
    assert found.enrichments()[3].config.octets == 2


def test_tables_in_the_file_are_all_that_runs_in_their_order(tmp_path: Path) -> None:
    text = (
        '[enrich.enrichments.anon_ip]\n[enrich.enrichments.first]\nuse = "campaign"\n'
        "[enrich.enrichments.event_fingerprint]\nenabled = false"
    )
    assert [(i.name, i.use) for i in settings(tmp_path, text).enrichments()] == [("anon_ip", "anon_ip"), ("first", "campaign")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datta = 1", r"unknown name 'datta'; did you mean data\?"),
        ("[journal]\nsegment_byte = 1", r"journal: unknown name 'segment_byte'; did you mean segment_bytes"),
        ("[journal]\nsegment_bytes = 'x'", r"journal\.segment_bytes: expected a whole number, not 'x'"),
        ("[gateway]\nport = 1", r"gateway: unknown name 'port'; there are devices, transports"),
        ("[gateway.transports.htp]", r"gateway\.transports\.htp: unknown name 'htp'; did you mean http\?"),
        ("[storage.targets.x]\nuse = 'sqlit'", r"storage\.targets\.x: unknown name 'sqlit'; did you mean sqlite\?"),
        ("[gateway.transports.http.cookie]\nenable = true", r"http\.cookie: unknown name 'enable'; did you mean enabled"),
        ("[enrich]\nlenient = 'bad_objekt'", r"enrich\.lenient: no \['bad_objekt'\]; there are bad_object"),
        ("[enrich.enrichments.anon_ip]\noctets = 9", r"anon_ip\.octets: expected 1 to 4"),
        ("[enrich.enrichments.event_fingerprint]\nalgorithm = 'crc'", r"expected one of md5, sha1"),
        ("journal = 3", r"journal: expected a table"),
        ("data = ", r"not TOML"),
    ],
)
def test_mistake_is_answered_with_one_line_that_names_the_cure(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        found = settings(tmp_path, text)
        list(effective(found))
        [instance.plugin(World()) for instance in found.enrichments()]
        building.enrich_options(found)
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="spoorway init"):
        load(tmp_path / "none.toml", {}, {})


def test_module_of_the_users_own_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shout_app.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Config:\n    to: str = ''\n"
        "class Plugin:\n    def __init__(self, config, world):\n        self.to = config.to\n"
        "    def __call__(self, event, raw):\n        return {'app_id': self.to}\n"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "shout_app.py").rename(tmp_path / "mine" / "shout.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = settings(tmp_path, "[enrich.enrichments.shout]\nuse = 'mine.shout'\nto = 'X'")
    assert found.enrichments()[0].plugin(World()).to == "X"

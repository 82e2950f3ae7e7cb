"""What docs/email.md and trackers/pixel/README.md say can be typed as it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from enrich.enrichments import defaults, email_agent
from enrich.pipeline import Options, Pipeline
from protocol.schemas import bundled
from protocol.seams import RawPayload
from spoorway.cli import main, parser
from spoorway.pixel import PROVIDERS
from spoorway.world import World

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/email.md").read_text("utf-8")
README = (ROOT / "trackers/pixel/README.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_commands_of_the_document_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples/newsletter/newsletter.html", tmp_path)
    lines = [shlex.split(line)[1:] for block in blocks(PAGE, "sh") for line in block.splitlines()]
    assert len(lines) == 9
    for line in lines:
        if line[:2] == ["pixel", "preview"]:  # which takes seconds, and has a test of its own
            parser().parse_args(line)
        else:
            assert main(line) == 0, line
    out = capsys.readouterr().out
    assert "<amp-pixel " in out and "<svg " in out and 'alt=""' in out
    assert "*|UNIQID|*" in (tmp_path / "template.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pixel open --url track.example.com", "expected https://HOST"),
        ("pixel open --url https://t.example --merge-tags pigeon", "no mail service 'pigeon'"),
        ("pixel open --url https://t.example --schema iglu:a/b/jsonschema/1-0-0 --json {", "--json: no JSON"),
        ("pixel click https://example.com/ --url https://t.example", "redirects.key_file is not configured"),
        ("pixel click https://example.com/unsubscribe --unsigned --url https://t.example", "must not depend on us"),
        ("pixel mail none.html --unsigned --url https://t.example", "none.html: No such file"),
        ("pixel preview none.html", "none.html: No such file"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_every_option_of_the_enrichment_is_in_the_document() -> None:
    (sample,) = blocks(PAGE, "toml")
    options: dict[str, Any] = tomllib.loads(sample)["enrich"]["enrichments"]["email_agent"]
    assert options.keys() == set(email_agent.Config.__slots__)
    assert email_agent.Config(**{**options, "also": tuple(options["also"])}) == email_agent.Config()


def test_every_merge_tag_of_the_document_is_the_builders() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.replace("\\|", "\0"), re.MULTILINE)
    told = {name: tuple(cell.strip("`").replace("\0", "|").replace("-", "") for cell in cells) for name, *cells in rows}
    ours = {name: (one.campaign, one.message, one.recipient) for name, one in PROVIDERS.items()}
    assert {name: cells for name, cells in told.items() if name in ours} == ours


def test_samples_of_the_readme_make_the_same_markup() -> None:
    (python,), (script,) = blocks(README, "python"), blocks(README, "js")
    made: dict[str, str] = {}
    exec(python, made)
    script = script.replace(", sentMs: Date.now()", "").replace("@spoorway/pixel", "./trackers/pixel/pixel.js")
    script += "console.log(picture); console.log(offer);"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == [made["picture"], made["offer"]]


def test_a_url_written_by_hand_is_an_event() -> None:
    (url,) = re.findall(r"^https://\S+$", README, re.MULTILINE)
    parts = urlsplit(url)
    request = RawPayload("0" * 32, 1_768_471_200_000, "http", parts.path, parts.query)
    (event,) = Pipeline(Options(), bundled, defaults(World())).outcomes(request, request.received_ms)
    assert isinstance(event, dict) and event["se_label"] == parse_qs(parts.query)["se_la"][0] == "spring"


def test_the_package_is_what_its_files_say() -> None:
    package: dict[str, Any] = json.loads((ROOT / "trackers/pixel/package.json").read_text("utf-8"))
    folder = ROOT / "trackers/pixel"
    assert all((folder / file).is_file() for file in package["files"])
    assert f'"pixel-{package["version"]}"' in (folder / "pixel.js").read_text("utf-8")
    kilobytes = re.search(r"`pixel.js` \| (\d+) KB", README)
    assert kilobytes and abs((folder / "pixel.js").stat().st_size / 1000 - int(kilobytes[1])) <= 0.6

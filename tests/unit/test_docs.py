"""What the documents say of commands, files and leniencies is so."""

import re
from pathlib import Path

import pytest

from enrich.leniency import LENIENCIES
from spoorway.cli import parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples/demo/README.md"])


def commands() -> set[str]:
    return set(next(a for a in parser()._actions if a.dest == "command").choices or ())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"`spoorway ([a-z]+)", document.read_text("utf-8")))
    named |= set(re.findall(r"^    (?:\.venv/bin/)?spoorway ([a-z]+)", document.read_text("utf-8"), re.MULTILINE))
    assert named <= commands()


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z-]+)`", document.read_text("utf-8"))) <= targets


def test_every_leniency_is_documented() -> None:
    text = (ROOT / "docs/enrichment.md").read_text("utf-8")
    for name in LENIENCIES:
        assert f"| `{name}` |" in text


def test_documents_speak_of_the_product_alone() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/work/|\bTODO\b|Co-authored", document.read_text("utf-8"))

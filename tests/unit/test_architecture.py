"""The map of rooms, held against the code: who may import whom, and what a plugin file must have."""

import ast
import dataclasses
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

from protocol.seams import ConfigurationError
from spoorway.plugins import available, configure

ROOT = Path(__file__).parents[2]
MAY_IMPORT: dict[str, set[str]] = {
    "protocol": set(),
    "gateway": {"protocol"},
    "enrich": {"protocol"},
    "storage": {"protocol"},
    "spoorway": {"protocol", "gateway", "enrich", "storage"},
}
# What enrich would need to touch the world: it is handed everything instead.
NOT_IN_ENRICH = {
    "socket",
    "http",
    "urllib.request",
    "asyncio",
    "time",
    "pathlib",
    "os",
    "io",
    "threading",
    "subprocess",
    "random",
}
FILES = sorted(p for room in MAY_IMPORT for p in (ROOT / room).rglob("*.py"))
FOLDERS = ("gateway.transports", "enrich.enrichments", "storage.targets")
PLUGINS = [(folder, name) for folder in FOLDERS for name in available(folder)]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_room_imports_only_what_the_map_allows(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    rooms = {name.split(".")[0] for name in imports(path)} & MAY_IMPORT.keys()
    assert rooms - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "enrich")], ids=lambda p: p.name)
def test_enrichment_touches_nothing_outside(path: Path) -> None:
    assert not imports(path) & NOT_IN_ENRICH


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_opens_with_its_law(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_plugin_file_has_a_config_and_a_plugin(folder: str, name: str) -> None:
    module = import_module(f"{folder}.{name}")
    assert dataclasses.is_dataclass(module.Config)
    assert callable(module.Plugin)


def test_every_folder_of_plugins_is_walked() -> None:
    assert {folder for folder, _ in PLUGINS} == set(FOLDERS)


def test_unknown_plugin_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"there are .*http"):
        configure("gateway.transports", "carrier_pigeon", {}, "gateway.transports.x")


def test_tests_folders_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_rooms_are_honest_top_level_packages() -> None:
    assert {m.name for m in pkgutil.iter_modules([str(ROOT)]) if m.ispkg} >= MAY_IMPORT.keys()

"""The questions of the SQL pack -> Datasette's metadata: canned queries, dashboards, a map; and a server that can only read.

Of the file nothing can be changed: it is opened read-only, and an authorizer refuses whatever is no reading, so that a question
cannot attach another file or set a pragma. A question that takes too long is stopped, one that makes a huge value as well. The
server listens on loopback, and answers only to a name of loopback, so that no web page can reach it under a name of its own.
"""

from __future__ import annotations

import html
import sqlite3
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from protocol.seams import ConfigurationError
from spoorway.database import authorize
from storage.sql import GROUPS, Chart, Question, questions, render
from storage.sql.dialects import PAGE

HOSTS = ("127.0.0.1", "localhost", "[::1]")
_LONGEST_VALUE = 5_000_000  # bytes
_TIMES = ("day", "moment", "step")
_OVERVIEW = ("volume", "sessions", "pages", "sources", "orders", "email_campaigns", "levels", "device_health", "failed")
_HIDDEN = ("cursors", "totals", "schemas", "failed_payloads", "dropped_events", "erasures", "gone_events", "device_runs")
# A picture of one transparent pixel: no map is fetched from anywhere unless somebody says so.
_NO_TILES = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

_OF_TABLES = ("foreign_key_list", "index_xinfo")

Scope = dict[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


def metadata(database: str, tiles: str = "") -> dict[str, Any]:
    """As Datasette reads it. database: the file's name without its ending. tiles: a map's tiles as {z}/{x}/{y}; "" = none."""
    known = questions()
    boards = {"overview": _board(database, "Overview", [known[name] for name in _OVERVIEW])} | {
        group: _board(database, title, [one for one in known.values() if one.group == group]) for group, title in GROUPS.items()
    }
    plugins: dict[str, Any] = {
        "datasette-dashboards": boards,
        "datasette-cluster-map": {"tile_layer": tiles or _NO_TILES, "tile_layer_options": {"attribution": "", "maxZoom": 19}},
    }
    if tiles:
        plugins["datasette-cluster-map"]["tile_layer_options"]["attribution"] = "© OpenStreetMap contributors"
    return {
        "title": "Spoorway",
        "description": "The stored events, to look at and to ask. Nothing can be changed here.",
        "plugins": plugins,
        "databases": {
            database: {
                "description": "latest_events shows the columns that one looks at; the queries answer questions.",
                "queries": {name: _query(one) for name, one in known.items()},
                "tables": {name: {"hidden": True} for name in _HIDDEN},
            }
        },
    }


def _query(question: Question) -> dict[str, Any]:
    lines = [f"<li><code>{p.name}</code>: {html.escape(p.about)}; {_default(p.default)}</li>" for p in question.parameters]
    lines += [f"<li>→ <code>{column.name}</code>: {html.escape(column.about)}</li>" for column in question.columns]
    found: dict[str, Any] = {
        "title": question.about,
        "description_html": f"<p>{html.escape(question.notes)}</p><ul>{''.join(lines)}</ul>",
        "sql": render(question, PAGE),
        "params": [parameter.name for parameter in question.parameters],
        "hide_sql": True,
    }
    if question.chart is not None:
        found["fragment"] = _fragment(question.chart)
    return found


def _default(text: str) -> str:
    return f"empty is {html.escape(text)}" if text else "may be empty"


def _fragment(chart: Chart) -> str:
    """What datasette-vega reads behind the # of an address."""
    mark = "line" if chart.kind == "line" else "bar"
    kind = "temporal" if chart.x in _TIMES else "ordinal"
    color = f"&g.color_column={chart.color}" if chart.color else ""
    return f"g.mark={mark}&g.x_column={chart.x}&g.x_type={kind}&g.y_column={chart.y}&g.y_type=quantitative{color}"


def _board(database: str, title: str, members: list[Question]) -> dict[str, Any]:
    shown = [one for one in members if one.chart is not None]
    names = [one.name for one in shown]
    filters = {
        "since": {"name": "Since", "type": "date"},
        "until": {"name": "Until", "type": "date"},
        "app": {"name": "Application", "type": "text"},
    }
    charts = {
        one.name: {
            "title": one.about,
            "db": database,
            "query": render(one, PAGE),
            "library": "vega-lite",
            "display": _display(one.chart),
        }
        for one in shown
        if one.chart is not None
    }
    layout = [names[at : at + 2] * (2 // len(names[at : at + 2])) for at in range(0, len(names), 2)]
    return {"title": title, "layout": layout, "filters": filters, "charts": charts}


def _display(chart: Chart) -> dict[str, Any]:
    value = {"field": chart.y, "type": "quantitative"}
    color = {"color": {"field": chart.color, "type": "nominal"}} if chart.color else {}
    if chart.kind == "heat":
        shade = {"color": value, "x": {"field": chart.color, "type": "ordinal"}, "y": {"field": chart.x, "type": "ordinal"}}
        return {"mark": {"type": "rect", "tooltip": True}, "encoding": shade}
    if chart.kind == "line" or chart.x in _TIMES:
        mark = {"type": chart.kind, "tooltip": True} | ({"point": True} if chart.kind == "line" else {})
        # A day is a band, so that its bar has a width; without a time it means UTC.
        band = {"timeUnit": "utcyearmonthdate", "scale": {"type": "utc"}} if chart.x == "day" else {}
        return {
            "mark": mark,
            "encoding": {"x": {"field": chart.x, "type": "temporal", "title": None, **band}, "y": value, **color},
        }
    what = {"field": chart.x, "type": "nominal", "sort": None, "axis": {"labelLimit": 160}, "title": None}
    return {"mark": {"type": "bar", "tooltip": True}, "encoding": {"y": what, "x": value, **color}}


def _guard(ours: str, hook: Any) -> ModuleType:
    """Datasette's plugin: what each connection may do, and to which names the server answers."""

    def prepare_connection(conn: sqlite3.Connection, database: str) -> None:
        if database == ours:
            for table in ("json_each", "json_tree"):  # their first use declares a table, which nobody may afterwards
                conn.execute(f"SELECT 1 FROM {table}('[]')")
            conn.execute("PRAGMA query_only = ON")
            conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            conn.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            conn.set_authorizer(_authorize)

    def asgi_wrapper() -> Callable[[Application], Application]:
        return _only_loopback

    plugin = ModuleType("spoorway_guard")
    for function in (prepare_connection, asgi_wrapper):
        setattr(plugin, function.__name__, hook(function))
    return plugin


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """As for `spoorway sql`, and what Datasette looks at to describe the tables; a pragma with a value is no looking."""
    if action == sqlite3.SQLITE_PRAGMA and (first in _OF_TABLES or (first == "schema_version" and second is None)):
        return sqlite3.SQLITE_OK
    return authorize(action, first, second, database, trigger)


def _only_loopback(inner: Application) -> Application:
    async def guarded(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
                start = {
                    "type": "http.response.start",
                    "status": 421,
                    "headers": [(b"content-type", b"text/plain; charset=utf-8")],
                }
                await send(start)
                await send({"type": "http.response.body", "body": b"This server answers on 127.0.0.1 and localhost only.\n"})
                return
        await inner(scope, receive, send)

    return guarded


def application(file: Path, limit_s: float, tiles: str = "") -> Any:
    """Datasette's ASGI application on that file. limit_s: of each question. Raises ConfigurationError."""
    try:
        app: Any = import_module("datasette.app")
        plugins: Any = import_module("datasette.plugins")
        hookimpl: Any = import_module("datasette").hookimpl
        for plugin in ("datasette_dashboards", "datasette_vega", "datasette_cluster_map"):
            import_module(plugin)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"exploring needs {error.name}; install spoorway[explore]") from None
    plugins.pm.register(_guard(file.stem, hookimpl))
    limit_ms = max(1, round(limit_s * 1000))
    datasette = app.Datasette(
        files=[str(file)],
        metadata=metadata(file.stem, tiles),
        settings={
            "sql_time_limit_ms": limit_ms,
            "facet_time_limit_ms": min(1_000, limit_ms),
            "suggest_facets": False,
            "default_page_size": 20,
            "max_returned_rows": 2_000,
            "allow_download": False,
            "default_cache_ttl": 0,
            "num_sql_threads": 2,
        },
    )
    return datasette.app()

"""Amounts of transactions in one base currency: `tr_*_base`, `ti_price_base`, `base_currency`.

Rates come from a file or a service. Amounts have 2 digits after the point, a half goes to the even one. With dated rates
the last of a day before the event's counts, so that a rebuild gives the same amounts.
"""

from __future__ import annotations

import csv
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any, cast

import orjson

from enrich.enrichments import RawEvent, Unanswered, WebRequest, World
from enrich.reasons import reason
from protocol.seams import ConfigurationError, Event, Reason

_CODE = re.compile(r"[A-Z]{3}")
_CENT = Decimal("0.01")
_MOST = Decimal("9999999999999999.995")  # what dec(18,2) holds, rounded
_EXACT = Context(prec=900, rounding=ROUND_HALF_EVEN)  # an amount has 400 digits at most
_DIVIDE = Context(prec=40, rounding=ROUND_HALF_EVEN)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GROUPS = (("tr_currency", ("tr_total", "tr_tax", "tr_shipping")), ("ti_currency", ("ti_price",)))


@dataclass(frozen=True, slots=True)
class Config:
    """base: what to convert to. rates: a .json, .toml or .csv file. rates_url: JSON of the same form; one of the two.

    rates_base: what one unit of the rates is, where they do not say. refresh_s: how long a service's rates are used.
    """

    base: str = "EUR"
    rates: str = ""
    rates_url: str = ""
    rates_base: str = "EUR"
    refresh_s: float = 3600
    timeout_s: float = 5


class Rates:
    """days: sorted ("" alone = undated); tables: of the same length, currency -> units of it for one of the rates' base."""

    def __init__(self, tables: Mapping[str, Mapping[str, Decimal]]) -> None:
        self._days = sorted(tables)
        self._tables = [tables[day] for day in self._days]

    def before(self, day: str) -> Mapping[str, Decimal] | None:
        """The rates of the last day before this one; None when all are later."""
        if self._days == [""]:
            return self._tables[0]
        index = bisect_left(self._days, day)
        return self._tables[index - 1] if index else None


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        for name, code in (("base", config.base), ("rates_base", config.rates_base)):
            if not _CODE.fullmatch(code):
                raise ConfigurationError(f"currency.{name}: expected three capital letters, not {code!r}")
        if bool(config.rates) == bool(config.rates_url):
            raise ConfigurationError("currency: set rates (a file) or rates_url, one of them")
        self._base = config.base
        self._rates = _from_file(config, world) if config.rates else _from_service(config, world)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        columns = cast(dict[str, Any], event)
        added: dict[str, Any] = {"base_currency": self._base}
        for currency, amounts in _GROUPS:
            code = columns.get(currency)
            if code is None:
                continue
            given = [name for name in amounts if name in columns]
            if not given:
                continue
            code = code.upper()
            try:
                rate = self._rate(code, columns["collector_tstamp"])
            except Unanswered as error:
                return reason("currency", currency, f"no rates: {error}", code)
            if rate is None:
                return reason("currency", currency, "no rate is known for this currency", code)
            for name in given:
                amount = _EXACT.multiply(columns[name], rate)
                if abs(amount) >= _MOST:
                    return reason("currency", name, f"too large for {name}_base", str(columns[name]))
                added[f"{name}_base"] = _EXACT.quantize(amount, _CENT)
        return cast(Event, added)

    def _rate(self, code: str, at_ms: int) -> Decimal | None:
        """Units of the base for one unit of `code`."""
        if code == self._base:
            return Decimal(1)
        day = (_EPOCH + timedelta(milliseconds=at_ms)).date().isoformat()
        table = self._rates().before(day)
        if table is None or code not in table or self._base not in table:
            return None
        return _DIVIDE.divide(table[self._base], table[code])


def _from_file(config: Config, world: World) -> Callable[[], Rates]:
    kind = config.rates.rpartition(".")[2].lower()
    if kind not in _READERS:
        raise ConfigurationError(f"currency.rates: expected a file that ends in {', '.join(_READERS)}")
    return world.watch(config.rates, lambda content: _READERS[kind](content, config.rates_base))


def _from_service(config: Config, world: World) -> Callable[[], Rates]:
    web = world.web(config.timeout_s, 4_000_000, 0)

    def ask(url: str) -> Rates:
        answer = web(WebRequest(url))
        if answer.status != 200:
            raise Unanswered(f"status {answer.status}")
        try:
            return from_json(answer.body, config.rates_base)
        except ValueError as error:
            raise Unanswered(str(error)) from None

    cached = world.cached(1, config.refresh_s, ask)
    return lambda: cached(config.rates_url)


def from_json(content: bytes, base: str) -> Rates:
    """{"base": "EUR", "rates": {"USD": 1.08}} or {"base": …, "days": {"2026-11-20": {"USD": 1.08}}}. Raises ValueError."""
    return _from_table(orjson.loads(content), base)


def _from_toml(content: bytes, base: str) -> Rates:
    return _from_table(tomllib.loads(content.decode(), parse_float=Decimal), base)


def _from_table(table: object, base: str) -> Rates:
    if not isinstance(table, dict):
        raise ValueError('expected {"base": …, "rates": {…}}')
    found = cast(dict[str, Any], table)
    days: dict[Any, Any] = found["days"] if isinstance(found.get("days"), dict) else {"": found.get("rates")}
    return Rates({_day(day): _table(rates, found.get("base", base)) for day, rates in days.items()})


def _from_csv(content: bytes, base: str) -> Rates:
    """Two columns currency, rate; or Date and one column for each currency, as central banks publish them."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    if not rows:
        raise ValueError("no rates: the file is empty")
    head, *lines = rows
    if head[0].lower() != "date":
        lines = rows if len(head) == 2 and _CODE.fullmatch(head[0]) else lines
        return Rates({"": _table({row[0]: row[1] for row in lines if len(row) == 2}, base)})
    tables = {row[0]: {c: r for c, r in zip(head[1:], row[1:], strict=False) if c and r not in ("", "N/A")} for row in lines}
    return Rates({_day(day): _table(table, base) for day, table in tables.items()})


def _table(rates: object, base: Any) -> dict[str, Decimal]:
    if not isinstance(rates, dict) or not rates:
        raise ValueError("no rates: expected currencies and numbers")
    found: dict[str, Decimal] = {}
    for code, rate in cast(dict[object, object], rates).items():
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise ValueError(f"expected three capital letters for a currency, not {code!r}")
        try:
            number = Decimal(str(rate))
        except InvalidOperation:
            number = Decimal(0)
        if isinstance(rate, bool) or not number.is_finite() or not Decimal("1e-15") < number < Decimal("1e15"):
            raise ValueError(f"expected a positive number for the rate of {code}, not {rate!r}")
        found[code] = number
    if not isinstance(base, str) or not _CODE.fullmatch(base):
        raise ValueError(f"expected three capital letters for base, not {base!r}")
    return {base: Decimal(1), **found}


def _day(text: object) -> str:
    if text == "":
        return ""
    try:
        return date.fromisoformat(str(text)).isoformat()
    except ValueError:
        raise ValueError(f"expected a day such as 2026-11-20, not {text!r}") from None


_READERS: dict[str, Callable[[bytes, str], Rates]] = {"json": from_json, "toml": _from_toml, "csv": _from_csv}

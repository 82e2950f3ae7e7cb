"""Currencies: vectors of amounts and rates, days, files in three forms, services that fail."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.enrichments.currency import Config, Plugin
from protocol.seams import ConfigurationError, Event, Reason
from spoorway.world import World
from tests.unit.enrichment_world import raw, service

NOON_MS = 1_795_262_400_000  # 2026-11-21T12:00:00Z
RATES = '{"base": "EUR", "rates": {"USD": 1.25, "GBP": 0.8, "JPY": 163.07, "SEK": 11}}'


def from_file(tmp_path: Path, text: str = RATES, name: str = "rates.json", **options: Any) -> Plugin:
    (tmp_path / name).write_text(text)
    return Plugin(Config(rates=str(tmp_path / name), **options), World())


def converted(made: Plugin, **columns: Any) -> dict[str, Any]:
    event: Any = {"collector_tstamp": NOON_MS, **columns}
    answer = made(event, raw())
    assert isinstance(answer, dict), answer
    return dict(answer)


def failure(made: Plugin, **columns: Any) -> tuple[str, str]:
    event: Any = {"collector_tstamp": NOON_MS, **columns}
    answer = made(event, raw())
    assert isinstance(answer, Reason), answer
    return answer.field, answer.message


@pytest.mark.parametrize(
    ("amount", "code", "base", "expected", "why"),
    [
        ("100", "USD", "EUR", "80.00", "divided by the rate"),
        ("100", "EUR", "USD", "125.00", "times the rate"),
        ("100", "USD", "GBP", "64.00", "both"),
        ("99.99", "EUR", "EUR", "99.99", "the same currency"),
        ("1", "USD", "EUR", "0.80", "always two digits"),
        ("1.005", "EUR", "EUR", "1.00", "a half goes to the even one: down"),
        ("1.015", "EUR", "EUR", "1.02", "a half goes to the even one: up"),
        ("0.004", "EUR", "EUR", "0.00", "less than a half is nothing"),
        ("-100", "USD", "EUR", "-80.00", "a refund"),
        ("0", "USD", "EUR", "0.00", "nothing"),
        ("16307", "JPY", "EUR", "100.00", "a currency without cents"),
        ("100", "EUR", "JPY", "16307.00", "two digits even so"),
        ("1", "SEK", "EUR", "0.09", "a periodic quotient"),
        ("11000000000000", "SEK", "EUR", "1000000000000.00", "the quotient's error stays below a cent"),
        ("9999999999999999.99", "EUR", "EUR", "9999999999999999.99", "the most that the column holds"),
        ("100", "usd", "EUR", "80.00", "small letters"),
    ],
)
def test_amount_is_converted(tmp_path: Path, amount: str, code: str, base: str, expected: str, why: str) -> None:
    found = converted(from_file(tmp_path, base=base), tr_currency=code, tr_total=Decimal(amount))
    assert str(found["tr_total_base"]) == expected, why


def test_all_amounts_of_both_kinds_are_converted(tmp_path: Path) -> None:
    columns = {"tr_currency": "USD", "tr_total": Decimal(10), "tr_tax": Decimal(5), "tr_shipping": Decimal(1)}
    assert converted(from_file(tmp_path), **columns, ti_currency="GBP", ti_price=Decimal(4)) == {
        "base_currency": "EUR",
        "tr_total_base": Decimal("8.00"),
        "tr_tax_base": Decimal("4.00"),
        "tr_shipping_base": Decimal("0.80"),
        "ti_price_base": Decimal("5.00"),
    }


@pytest.mark.parametrize(
    "columns", [{}, {"tr_currency": "XXX"}, {"tr_total": Decimal(1)}, {"ti_price": Decimal(1), "tr_currency": "USD"}]
)
def test_base_is_on_every_event_and_amounts_need_their_currency(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert converted(from_file(tmp_path), **columns) == {"base_currency": "EUR"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"tr_currency": "XXX", "tr_total": Decimal(1)}, ("tr_currency", "no rate is known for this currency")),
        ({"ti_currency": "", "ti_price": Decimal(1)}, ("ti_currency", "no rate is known for this currency")),
        ({"tr_currency": "USD", "tr_total": Decimal("1E300")}, ("tr_total", "too large for tr_total_base")),
        ({"tr_currency": "EUR", "tr_tax": Decimal(10) ** 16}, ("tr_tax", "too large for tr_tax_base")),
    ],
)
def test_what_cannot_be_converted_is_a_reason(tmp_path: Path, columns: dict[str, Any], expected: tuple[str, str]) -> None:
    assert failure(from_file(tmp_path), **columns) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", RATES),
        ("a.json", '{"rates": {"USD": 1.25}}'),
        ("a.json", '{"base": "USD", "rates": {"EUR": 0.8}}'),
        ("a.toml", 'base = "EUR"\n[rates]\nUSD = 1.25\n'),
        ("a.csv", "currency,rate\nUSD,1.25\n"),
        ("a.csv", "USD,1.25\nGBP,0.8\n"),
        ("a.csv", "\ufeffDate,USD,CYP,\n2026-11-20,1.25,N/A,\n2026-11-19,7,1,\n"),
        ("a.json", '{"base": "EUR", "days": {"2026-11-20": {"USD": 1.25}, "2026-11-01": {"USD": 7}}}'),
        ("a.toml", "[days.2026-11-20]\nUSD = 1.25\n[days.2026-11-21]\nUSD = 9.0\n"),
    ],
)
def test_rates_are_read_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    found = converted(from_file(tmp_path, text, name), tr_currency="USD", tr_total=Decimal(100))
    assert str(found["tr_total_base"]) == "80.00"


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (1_795_219_199_999, None),  # 2026-11-20T23:59:59.999: its own day does not count
        (1_795_219_200_000, "1.00"),
        (1_795_305_599_999, "1.00"),
        (1_795_305_600_000, "2.00"),
        (1_900_000_000_000, "2.00"),
        (0, None),
    ],
)
def test_last_day_before_the_event_counts(tmp_path: Path, at: int, expected: str | None) -> None:
    made = from_file(tmp_path, '{"days": {"2026-11-20": {"USD": 2}, "2026-11-21": {"USD": 1}}}')
    event: Event = {"collector_tstamp": at, "tr_currency": "USD", "tr_total": Decimal(2)}
    answer = made(event, raw())
    if expected is None:
        assert isinstance(answer, Reason)
    else:
        assert isinstance(answer, dict) and str(answer["tr_total_base"]) == expected


def test_changed_file_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "rates.json"
    file.write_text('{"rates": {"USD": 2}}')
    made = Plugin(Config(rates=str(file)), World(lambda: now[0]))
    for text, expected in (
        ('{"rates": {"USD": 4}}', "25.00"),
        ('{"rates": {"USD": 0}}', "25.00"),
        ('{"rates": {"USD": 5}}', "20.00"),
    ):
        file.write_text(text)
        now[0] += 10
        assert str(converted(made, tr_currency="USD", tr_total=Decimal(100))["tr_total_base"]) == expected


def test_service_is_asked_once_an_hour_and_its_last_rates_outlive_it() -> None:
    now = [0.0]
    with service() as site:
        url = f"{site.url}/text?t=%7B%22rates%22:%7B%22USD%22:2%7D%7D"
        made = Plugin(Config(rates_url=url, timeout_s=0.5), World(lambda: now[0]))
        for _ in range(3):
            assert str(converted(made, tr_currency="USD", tr_total=Decimal(1))["tr_total_base"]) == "0.50"
        assert len(site.asked) == 1
    now[0] = 4_000
    assert str(converted(made, tr_currency="USD", tr_total=Decimal(1))["tr_total_base"]) == "0.50"


@pytest.mark.parametrize("path", ["/status?code=500", "/hang", "/text?t=x", "/text?t=%7B%7D", "/text?t=%5B%5D"])
def test_service_that_never_answered_is_a_reason(path: str) -> None:
    with service() as site:
        made = Plugin(Config(rates_url=site.url + path, timeout_s=0.2), World())
        field, message = failure(made, tr_currency="USD", tr_total=Decimal(1))
        assert field == "tr_currency" and message.startswith("no rates: ")
        assert converted(made, tr_currency="EUR", tr_total=Decimal(1))["tr_total_base"] == Decimal("1.00")


@pytest.mark.parametrize(
    ("text", "name", "options", "match"),
    [
        ("{}", "a.json", {}, "no rates"),
        ("[]", "a.json", {}, "expected"),
        ("{", "a.json", {}, r"a\.json"),
        ('{"rates": {"USD": 0}}', "a.json", {}, "positive number for the rate of USD"),
        ('{"rates": {"USD": -1}}', "a.json", {}, "positive number"),
        ('{"rates": {"USD": true}}', "a.json", {}, "positive number"),
        ('{"rates": {"USD": "much"}}', "a.json", {}, "positive number"),
        ('{"rates": {"dollar": 1}}', "a.json", {}, "three capital letters"),
        ('{"base": 5, "rates": {"USD": 1}}', "a.json", {}, "three capital letters for base"),
        ('{"days": {"yesterday": {"USD": 1}}}', "a.json", {}, "expected a day"),
        ("", "a.csv", {}, "empty"),
        ("x = nan", "a.toml", {}, "no rates"),
        (RATES, "a.xml", {}, "ends in json, toml, csv"),
        (RATES, "a.json", {"base": "euro"}, "three capital letters, not 'euro'"),
        (RATES, "a.json", {"rates_url": "http://h/"}, "one of them"),
    ],
)
def test_mistake_is_found_at_the_start(tmp_path: Path, text: str, name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        from_file(tmp_path, text, name, **options)


AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False) | st.decimals(-(10**15), 10**15, places=2)


@settings(max_examples=300, deadline=None)
@given(amount=AMOUNTS, code=st.sampled_from(["USD", "EUR", "SEK", "XXX", "", "ä"]) | st.text(), at=st.integers(0, 2**42))
def test_any_amount_is_converted_to_the_cent_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, amount: Decimal, code: str, at: int
) -> None:
    made = _made.setdefault("one", from_file(tmp_path_factory.mktemp("r")) if not _made else _made.get("one"))
    event: Event = {"collector_tstamp": at, "tr_currency": code, "tr_total": amount}
    answer = made(event, raw())
    if isinstance(answer, dict):
        base = answer["tr_total_base"]
        rates = {"USD": Decimal("1.25"), "EUR": Decimal(1), "SEK": Decimal(11), "GBP": Decimal("0.8"), "JPY": Decimal("163.07")}
        assert base.as_tuple().exponent == -2
        assert abs(base * rates[code.upper()] - amount) <= Decimal("0.00501") * rates[code.upper()]
    else:
        assert abs(amount) > 10**15 or code.upper() not in ("USD", "EUR", "SEK", "GBP", "JPY")


_made: dict[str, Any] = {}

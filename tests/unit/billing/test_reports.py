"""Reports: savings, forecasts and anomalies as arithmetic."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageColor

from services.billing.prices import ExchangeRate, Price, PriceBook
from services.billing.reports.chart import BAR, EDGE, HEIGHT, as_png, as_svg
from services.billing.reports.report import Line, Report, Reports, forecast, hours_of
from services.billing.reports.table import as_csv

NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DAY = "2026-10-07 00:00:00"
THOUSAND = 1000
DOLLAR = 1_000_000


def book() -> PriceBook:
    """The prices of the source documents, in dollars per thousand tokens of prompt and answer together."""
    made = PriceBook("USD")
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    per_million = {"openai": (10, 30), "gigachat": (3, 3), "yandexgpt": (3.5, 3.5), "qwen": (2.5, 2.5)}
    prices = [
        Price(name, "USD", round(given * DOLLAR), round(given * DOLLAR), round(taken * DOLLAR), long_ago)
        for name, (given, taken) in per_million.items()
    ]
    made.load(prices, [ExchangeRate("RUB", 12_500, long_ago)])
    return made


async def report_of(lines: Sequence[Line], baseline: str = "openai", embedder: str = "none") -> Report:
    async def currency_of(tenant_id: str) -> str:
        return "USD"

    async def found(tenant_id: str, start: datetime, end: datetime) -> Sequence[Line]:
        return lines

    reports = Reports(book(), currency_of=currency_of, lines=found, baseline=baseline, embedder=embedder)
    return await reports.report("acme", NOVEMBER, DECEMBER)


def bought(provider: str, requests: int) -> list[Line]:
    tokens = requests * THOUSAND
    cost = book().total(provider, Line(input_tokens=tokens, output_tokens=tokens).usage, "USD", DECEMBER)
    return [
        Line(level, name, request_count=requests, input_tokens=tokens, output_tokens=tokens, cost_micros=cost)
        for level, name in (("day", DAY), ("provider", provider))
    ]


async def test_the_savings_of_the_cost_analysis_come_out_as_it_says() -> None:
    """A million requests a month of a thousand tokens each way: 600,000 from the cache, the rest at four providers."""
    found = Line("day", DAY, cached=True, request_count=600_000, input_tokens=600_000_000, output_tokens=600_000_000)
    shares = {"gigachat": 200_000, "yandexgpt": 120_000, "qwen": 60_000, "openai": 20_000}
    report = await report_of([found, *(line for name, count in shares.items() for line in bought(name, count))])
    assert report.total.cost_micros == 3_140 * DOLLAR
    assert (report.total.request_count, report.total.cached_count) == (1_000_000, 600_000)
    savings = report.savings
    assert savings.baseline_micros == 40_000 * DOLLAR
    assert savings.total_micros == 36_860 * DOLLAR
    assert savings.cache_micros == 24_000 * DOLLAR
    assert savings.routing_micros == (16_000 - 3_140) * DOLLAR
    # Dearest first; of equals the first named.
    assert [total.name for total in report.by["provider"]] == ["gigachat", "yandexgpt", "openai", "qwen"]


async def test_what_the_caches_embeddings_cost_is_taken_off_its_savings() -> None:
    lines = [
        Line("day", DAY, cached=True, exact=True, request_count=1, input_tokens=1_000_000),
        Line("day", DAY, cached=True, request_count=1, input_tokens=1_000_000),
        Line("day", DAY, request_count=1, input_tokens=1_000_000, output_tokens=1_000_000),
    ]
    savings = (await report_of(lines, embedder="qwen")).savings
    # An exact hit embeds nothing, and answers are never embedded.
    assert savings.embedding_micros == 2 * 2_500_000
    assert savings.cache_micros == 2 * 10_000_000 - savings.embedding_micros


async def test_without_a_price_of_the_baseline_nothing_is_claimed() -> None:
    report = await report_of(bought("qwen", 10), baseline="nobody")
    assert (report.savings.baseline_deployment, report.savings.total_micros) == ("", 0)
    assert report.total.cost_micros > 0


def test_a_forecast_goes_on_as_so_far() -> None:
    tenth = NOVEMBER + (DECEMBER - NOVEMBER) / 10
    assert forecast(100, NOVEMBER, DECEMBER, tenth) == 1000
    assert forecast(100, NOVEMBER, DECEMBER, DECEMBER) == 100
    assert forecast(0, NOVEMBER, DECEMBER, NOVEMBER) == 0


@pytest.mark.parametrize(("cost", "anomalous"), [(150, False), (151, True), (0, False)])
def test_an_hour_is_compared_with_the_same_hour_of_the_day_before(cost: int, anomalous: bool) -> None:
    before = (NOVEMBER - timedelta(days=1)).replace(tzinfo=None)
    lines = [Line("hour", str(before), cost_micros=100), Line("hour", "2026-10-01 00:00:00", cost_micros=cost)]
    [hour] = hours_of(lines, NOVEMBER)
    assert (hour.start, hour.cost_micros, hour.anomalous) == (NOVEMBER, cost, anomalous)


def test_an_hour_without_a_yesterday_is_no_anomaly() -> None:
    [hour] = hours_of([Line("hour", "2026-10-01 00:00:00", cost_micros=10**9)], NOVEMBER)
    assert not hour.anomalous


async def test_a_picture_has_the_bars_of_the_drawing() -> None:
    day_after = DAY.replace("-07", "-08")
    lines = [Line("day", DAY, cost_micros=100), Line("day", day_after, cost_micros=50)]
    report = await report_of([*lines, Line("day", DAY.replace("-07", "-09"), cost_micros=-5)])
    picture = Image.open(io.BytesIO(as_png(report))).convert("RGB")
    drawn = ElementTree.fromstring(as_svg(report)).findall("{http://www.w3.org/2000/svg}rect")
    assert [float(bar.attrib["height"]) for bar in drawn] == [HEIGHT - 2 * EDGE, HEIGHT / 2 - EDGE, 0]
    for bar in drawn[:2]:
        x, top = (round(float(bar.attrib[name])) + 2 for name in ("x", "y"))
        blue, above = picture.getpixel((x, top)), picture.getpixel((x, top - 6))
        assert (blue, above) == (ImageColor.getrgb(BAR), (255, 255, 255))


async def test_a_table_holds_no_formula_and_a_chart_no_markup() -> None:
    lines = [*bought("gigachat", 10), Line("team", "=cmd|' /C calc'!A0", request_count=1), Line("key", 'a,"b"')]
    report = await report_of(lines)
    rows = list(csv.DictReader(io.StringIO(as_csv(report, with_margin=False).decode())))
    by_level = {row["level"]: row for row in rows}
    assert by_level["team"]["name"].startswith("'=")
    assert by_level["key"]["name"] == 'a,"b"'
    assert (by_level["total"]["cost"], by_level["total"]["currency"]) == ("0.06", "USD")
    chart = ElementTree.fromstring(as_svg(report))
    assert len(chart.findall("{http://www.w3.org/2000/svg}rect")) == 1

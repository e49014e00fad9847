"""Reports as files: a table for spreadsheets and a chart for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from html import escape

from services.billing.money import to_text
from services.billing.reports.report import Report, Total

COLUMNS = (
    "level", "name", "requests", "cached", "input_tokens", "output_tokens", "cost", "saved", "overrun", "currency"
)  # fmt: skip
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
WIDTH, HEIGHT, MARGIN = 960, 320, 48


def as_csv(report: Report) -> bytes:
    """One line per line of the report; amounts in units of the currency, with a point."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerow(_row("total", report.total, report.currency_code))
    for level, totals in (*report.by.items(), ("day", report.days)):
        writer.writerows(_row(level, total, report.currency_code) for total in totals)
    return table.getvalue().encode()


def as_svg(report: Report) -> bytes:
    """A bar for each day's cost."""
    title = f"{report.tenant_id}: {to_text(report.total.cost_micros)} {report.currency_code}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<text x="{MARGIN}" y="20" font-size="14">{escape(title)}</text>',
        *_bars(report),
        "</svg>",
    ]
    return "\n".join(parts).encode()


def _bars(report: Report) -> Iterator[str]:
    dearest = max((day.cost_micros for day in report.days), default=0)
    step = (WIDTH - 2 * MARGIN) / max(1, len(report.days))
    floor, room = HEIGHT - MARGIN, HEIGHT - 2 * MARGIN
    for number, day in enumerate(report.days):
        height = room * day.cost_micros / dearest if dearest else 0
        x = MARGIN + number * step
        label = escape(f"{day.name[:10]}: {to_text(day.cost_micros)} {report.currency_code}")
        yield (
            f'<rect x="{x:.1f}" y="{floor - height:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}" fill="#2b6cb0">'
            f"<title>{label}</title></rect>"
        )
    yield f'<line x1="{MARGIN}" y1="{floor}" x2="{WIDTH - MARGIN}" y2="{floor}" stroke="#888"/>'
    yield f'<text x="{MARGIN}" y="{floor + 20}">{report.start.date()}</text>'
    yield f'<text x="{WIDTH - MARGIN}" y="{floor + 20}" text-anchor="end">{report.end.date()}</text>'


def _row(level: str, total: Total, currency_code: str) -> list[str | int]:
    return [
        level, _inert(total.name), total.request_count, total.cached_count, total.input_tokens, total.output_tokens,
        to_text(total.cost_micros), to_text(total.saved_micros), to_text(total.overrun_micros), currency_code,
    ]  # fmt: skip


def _inert(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(_FORMULA_STARTS) else name

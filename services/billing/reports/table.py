"""Reports as tables for spreadsheets."""

from __future__ import annotations

import csv
import io

from services.billing.money import to_text
from services.billing.reports.report import Report, Total

COLUMNS = (
    "level", "name", "requests", "cached", "input_tokens", "output_tokens", "cost", "saved", "overrun", "currency"
)  # fmt: skip
MARGIN_COLUMNS = ("provider_cost", "margin")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_csv(report: Report, *, with_margin: bool) -> bytes:
    """One line per line of the report; amounts in units of the currency, with a point."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow((*COLUMNS, *MARGIN_COLUMNS) if with_margin else COLUMNS)
    for level, totals in (("total", [report.total]), *report.by.items(), ("day", report.days)):
        for total in totals:
            margin = (to_text(total.provider_micros), to_text(total.earned_micros)) if with_margin else ()
            writer.writerow((*_row(level, total, report.currency_code), *margin))
    return table.getvalue().encode()


def _row(level: str, total: Total, currency_code: str) -> list[str | int]:
    return [
        level, _inert(total.name), total.request_count, total.cached_count, total.input_tokens, total.output_tokens,
        to_text(total.cost_micros), to_text(total.saved_micros), to_text(total.overrun_micros), currency_code,
    ]  # fmt: skip


def _inert(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(_FORMULA_STARTS) else name

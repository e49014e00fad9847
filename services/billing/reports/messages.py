"""Between reports and their messages."""

from __future__ import annotations

from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import reports_pb2
from meshkit.errors import FieldInvalid
from services.billing.messages import time_of, timestamp
from services.billing.reports.report import Report, Total

LONGEST_PERIOD = timedelta(days=366)
HOUR = timedelta(hours=1)

Request: TypeAlias = reports_pb2.GetReportRequest | reports_pb2.ExportReportRequest
Period: TypeAlias = Request | reports_pb2.GetInvoiceRequest | reports_pb2.ExportInvoiceRequest


def period_of(request: Period) -> tuple[datetime, datetime]:
    """The whole hours a report or an invoice is about: this month, unless the request says otherwise."""
    now = datetime.now(UTC)
    given = _time_of("start_time", request.start_time) if request.HasField("start_time") else now.replace(day=1, hour=0)
    start = given.replace(minute=0, second=0, microsecond=0)
    next_month = (start.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)
    end = _time_of("end_time", request.end_time) if request.HasField("end_time") else next_month
    whole = end.replace(minute=0, second=0, microsecond=0)
    end = whole if whole == end else whole + HOUR
    if not timedelta(0) < end - start <= LONGEST_PERIOD:
        raise FieldInvalid("end_time", "must lie after start_time and at most 366 days later")
    return start, end


def report_message(report: Report, *, with_margin: bool) -> reports_pb2.Report:
    """A report; what providers take is not everybody's to know."""

    def line(total: Total) -> reports_pb2.ReportLine:
        return _line(total, with_margin=with_margin)

    savings = report.savings
    hours = [
        reports_pb2.HourCost(
            start_time=timestamp(hour.start),
            cost_micros=hour.cost_micros,
            request_count=hour.request_count,
            anomalous=hour.anomalous,
        )
        for hour in report.hours
    ]
    return reports_pb2.Report(
        tenant_id=report.tenant_id,
        currency_code=report.currency_code,
        start_time=timestamp(report.start),
        end_time=timestamp(report.end),
        total=line(report.total),
        **{f"by_{level}": [line(total) for total in totals] for level, totals in report.by.items()},
        hours=hours,
        forecast_micros=report.forecast_micros,
        savings=reports_pb2.Savings(
            baseline_deployment=savings.baseline_deployment,
            baseline_micros=savings.baseline_micros,
            total_micros=savings.total_micros,
            routing_micros=savings.routing_micros,
            cache_micros=savings.cache_micros,
            embedding_micros=savings.embedding_micros,
            early_stop_micros=savings.early_stop_micros,
        ),
    )


def _time_of(field: str, message: Timestamp) -> datetime:
    time = time_of(field, message)
    # The months and hours around it must be times too.
    if time.year == MAXYEAR:
        raise FieldInvalid(field, f"must lie before the year {MAXYEAR}")
    return time


def _line(total: Total, *, with_margin: bool) -> reports_pb2.ReportLine:
    return reports_pb2.ReportLine(
        name=total.name,
        request_count=total.request_count,
        cached_count=total.cached_count,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cost_micros=total.cost_micros,
        saved_micros=total.saved_micros,
        overrun_micros=total.overrun_micros,
        provider_micros=total.provider_micros if with_margin else None,
        margin_micros=total.earned_micros if with_margin else None,
    )

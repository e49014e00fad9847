"""ReportService: reports as messages and as files."""

from __future__ import annotations

from google.api import httpbody_pb2

from llmmesh.billing.v1 import reports_pb2
from llmmesh.billing.v1.reports_pb2_grpc import ReportServiceServicer
from meshkit.server import Context
from services.billing.access import visible_tenant
from services.billing.fields import check_text
from services.billing.messages import enum_word
from services.billing.reports.files import as_csv, as_svg
from services.billing.reports.messages import Request, period_of, report_message
from services.billing.reports.report import Report, Reports


class ReportServicer(ReportServiceServicer):
    """Decodes, asks the domain, encodes."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def GetReport(self, request: reports_pb2.GetReportRequest, context: Context) -> reports_pb2.GetReportResponse:
        """A tenant's report."""
        return reports_pb2.GetReportResponse(report=report_message(await self._report(request)))

    async def ExportReport(self, request: reports_pb2.ExportReportRequest, context: Context) -> httpbody_pb2.HttpBody:
        """The same as a file."""
        chart = enum_word("format", reports_pb2.ReportFormat, request.format) == "svg"
        report = await self._report(request)
        if chart:
            return httpbody_pb2.HttpBody(content_type="image/svg+xml", data=as_svg(report))
        return httpbody_pb2.HttpBody(content_type="text/csv; charset=utf-8", data=as_csv(report))

    async def _report(self, request: Request) -> Report:
        start, end = period_of(request)
        baseline = check_text("baseline_deployment", request.baseline_deployment, required=False)
        return await self._reports.report(visible_tenant(request.tenant_id), start, end, baseline)

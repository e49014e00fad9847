"""ReportService: reports as messages and as files."""

from __future__ import annotations

import asyncio

from google.api import httpbody_pb2

from llmmesh.billing.v1 import reports_pb2
from llmmesh.billing.v1.reports_pb2_grpc import ReportServiceServicer
from meshkit.server import Context
from services.billing.access import sees_margins, visible_tenant
from services.billing.fields import check_text
from services.billing.invoices.invoice import Invoices
from services.billing.invoices.messages import invoice_message
from services.billing.invoices.printer import Printer
from services.billing.messages import enum_word
from services.billing.reports.chart import as_png, as_svg
from services.billing.reports.messages import Request, period_of, report_message
from services.billing.reports.report import Report, Reports
from services.billing.reports.table import as_csv


class ReportServicer(ReportServiceServicer):
    """Decodes, asks the domain, encodes."""

    def __init__(self, reports: Reports, invoices: Invoices, printer: Printer) -> None:
        self._reports = reports
        self._invoices = invoices
        self._printer = printer

    async def GetReport(self, request: reports_pb2.GetReportRequest, context: Context) -> reports_pb2.GetReportResponse:
        """A tenant's report."""
        report = await self._report(request)
        return reports_pb2.GetReportResponse(report=report_message(report, with_margin=sees_margins()))

    async def ExportReport(self, request: reports_pb2.ExportReportRequest, context: Context) -> httpbody_pb2.HttpBody:
        """The same as a file."""
        kind = enum_word("format", reports_pb2.ReportFormat, request.format)
        report = await self._report(request)
        if kind == "svg":
            return httpbody_pb2.HttpBody(content_type="image/svg+xml", data=as_svg(report))
        if kind == "png":
            # It takes a tenth of a second, for which nobody who spends shall wait.
            picture = await asyncio.to_thread(as_png, report)
            return httpbody_pb2.HttpBody(content_type="image/png", data=picture)
        table = as_csv(report, with_margin=sees_margins())
        return httpbody_pb2.HttpBody(content_type="text/csv; charset=utf-8", data=table)

    async def GetInvoice(
        self, request: reports_pb2.GetInvoiceRequest, context: Context
    ) -> reports_pb2.GetInvoiceResponse:
        """A tenant's invoice."""
        return reports_pb2.GetInvoiceResponse(invoice=await self._invoice(request))

    async def ExportInvoice(self, request: reports_pb2.ExportInvoiceRequest, context: Context) -> httpbody_pb2.HttpBody:
        """The same as a PDF."""
        pdf = await self._printer.pdf(await self._invoice(request))
        return httpbody_pb2.HttpBody(content_type="application/pdf", data=pdf)

    async def _invoice(
        self, request: reports_pb2.GetInvoiceRequest | reports_pb2.ExportInvoiceRequest
    ) -> reports_pb2.Invoice:
        start, end = period_of(request)
        return invoice_message(await self._invoices.invoice(visible_tenant(request.tenant_id), start, end))

    async def _report(self, request: Request) -> Report:
        start, end = period_of(request)
        baseline = check_text("baseline_deployment", request.baseline_deployment, required=False)
        return await self._reports.report(visible_tenant(request.tenant_id), start, end, baseline)

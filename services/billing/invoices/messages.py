"""An invoice as a message."""

from __future__ import annotations

from llmmesh.billing.v1 import reports_pb2
from services.billing.invoices.invoice import Invoice, InvoiceLine
from services.billing.messages import timestamp


def invoice_message(invoice: Invoice) -> reports_pb2.Invoice:
    """An invoice."""
    return reports_pb2.Invoice(
        number=invoice.number,
        tenant_id=invoice.tenant_id,
        display_name=invoice.display_name,
        issuer=invoice.issuer,
        currency_code=invoice.currency_code,
        start_time=timestamp(invoice.start),
        end_time=timestamp(invoice.end),
        final=invoice.final,
        lines=[_line(line) for line in invoice.lines],
        cached_count=invoice.cached_count,
        total_micros=invoice.total_micros,
        payable_micros=invoice.payable_micros,
    )


def _line(line: InvoiceLine) -> reports_pb2.InvoiceLine:
    return reports_pb2.InvoiceLine(
        deployment=line.deployment,
        request_count=line.request_count,
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens,
        cost_micros=line.cost_micros,
    )

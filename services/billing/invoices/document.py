"""`python -m services.billing.invoices.document`: an invoice, a message on standard input, as a PDF on standard output.

A process of its own: what draws PDFs takes as much memory as the rest of billing, and is needed a few times a month.
"""

from __future__ import annotations

import sys
from datetime import UTC

import font_roboto
from fpdf import FPDF

from llmmesh.billing.v1.reports_pb2 import Invoice, InvoiceLine
from services.billing.money import to_text

COLUMNS = ("Deployment", "Requests", "Tokens in", "Tokens out", "Amount")
WIDTHS = (34, 14, 17, 17, 18)


def as_pdf(invoice: Invoice) -> bytes:
    """The invoice on paper. The same invoice is the same bytes."""
    pdf = FPDF()
    pdf.set_creation_date(invoice.end_time.ToDatetime(UTC))
    pdf.set_title(f"Invoice {invoice.number}")
    pdf.add_font("Roboto", "", font_roboto.font_files["Roboto"])
    pdf.add_font("Roboto", "B", font_roboto.font_files["RobotoBold"])
    pdf.add_page()
    _write_heading(pdf, invoice)
    _write_lines(pdf, invoice)
    _write_total(pdf, invoice)
    return bytes(pdf.output())


def _write_heading(pdf: FPDF, invoice: Invoice) -> None:
    pdf.set_font("Roboto", "B", 16)
    draft = "" if invoice.final else " (draft: the period is not over)"
    pdf.multi_cell(0, 9, f"Invoice {invoice.number}{draft}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Roboto", "", 10)
    parties = (("From", invoice.issuer), ("To", f"{invoice.display_name or invoice.tenant_id} ({invoice.tenant_id})"))
    start, end = invoice.start_time.ToDatetime(UTC), invoice.end_time.ToDatetime(UTC)
    for name, text in (*parties, ("Period", f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")):
        if text:
            pdf.multi_cell(0, 6, f"{name}: {text}", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)


def _write_lines(pdf: FPDF, invoice: Invoice) -> None:
    aligned = ("LEFT", *("RIGHT" for _ in COLUMNS[1:]))
    with pdf.table(col_widths=WIDTHS, text_align=aligned) as table:
        table.row(COLUMNS)
        for line in invoice.lines:
            table.row(_cells(line))


def _write_total(pdf: FPDF, invoice: Invoice) -> None:
    pdf.ln(4)
    currency = invoice.currency_code
    if invoice.cached_count:
        pdf.multi_cell(0, 6, f"Answered from the cache, free: {invoice.cached_count:,}", new_x="LMARGIN", new_y="NEXT")
    pdf.multi_cell(0, 6, f"Total: {to_text(invoice.total_micros)} {currency}", align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Roboto", "B", 12)
    pdf.multi_cell(0, 8, f"To pay: {to_text(invoice.payable_micros)} {currency}", align="R")


def _cells(line: InvoiceLine) -> tuple[str, ...]:
    counts = (line.request_count, line.input_tokens, line.output_tokens)
    return (line.deployment, *(f"{count:,}" for count in counts), to_text(line.cost_micros))


def main() -> None:
    """Read an invoice, write its PDF."""
    sys.stdout.buffer.write(as_pdf(Invoice.FromString(sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()

"""Prints invoices, one at a time, in a process that goes when it is done."""

from __future__ import annotations

import asyncio
import sys

from llmmesh.billing.v1.reports_pb2 import Invoice
from meshkit.deadline import time_left
from meshkit.errors import DependencyUnavailable

LONGEST_SECONDS = 30.0


class Printer:
    """Makes PDFs."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Semaphore(1)

    async def pdf(self, invoice: Invoice) -> bytes:
        """The invoice as a PDF.

        Raises:
            DependencyUnavailable: If it takes too long, others that are printed first included.
        """
        try:
            async with asyncio.timeout(time_left(at_most=LONGEST_SECONDS)), self._one_at_a_time:
                return await _printed(invoice)
        except TimeoutError:
            raise DependencyUnavailable("Printing took too long: retry.", retry_after_seconds=1) from None


async def _printed(invoice: Invoice) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.billing.invoices.document",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        pdf, _ = await process.communicate(invoice.SerializeToString())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"printing an invoice ended with {process.returncode}")
    return pdf

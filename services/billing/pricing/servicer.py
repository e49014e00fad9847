"""PriceBookService: prices, exchange rates and margins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeAlias

from google.api import httpbody_pb2

from llmmesh.billing.v1 import prices_pb2
from llmmesh.billing.v1.prices_pb2_grpc import PriceBookServiceServicer
from meshkit.errors import FieldInvalid
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import visible_tenant
from services.billing.database.prices import MARGINS, PRICES, RATES, Kind, PriceConflict, PriceStore, Row
from services.billing.fields import check_currency, check_text
from services.billing.messages import enum_word, time_of
from services.billing.once import Once
from services.billing.price_list import as_csv, as_yaml, price_list
from services.billing.prices import PriceBook
from services.billing.pricing.messages import (
    margin_message,
    margin_of,
    price_of,
    price_row_message,
    rate_message,
    rate_of,
)

ListRequest: TypeAlias = (
    prices_pb2.ListPriceHistoryRequest | prices_pb2.ListExchangeRatesRequest | prices_pb2.ListMarginsRequest
)
LONGEST_FILE = 1_000_000


class PriceBookServicer(PriceBookServiceServicer):
    """Decodes, asks the store, encodes."""

    def __init__(self, store: PriceStore, book: PriceBook, *, currency_of: Callable[[str], Awaitable[str]]) -> None:
        self._store = store
        self._book = book
        self._currency_of = currency_of

    async def CreatePrice(
        self, request: prices_pb2.CreatePriceRequest, context: Context
    ) -> prices_pb2.CreatePriceResponse:
        """Add a price."""
        asked = datetime.now(UTC)
        price = price_of(request, asked)
        if not self._book.knows_currency(price.currency_code, price.effective_time):
            raise FieldInvalid("currency_code", "has no exchange rate at that time: add one first")
        added = await self._store.create(PRICES, price, asked=asked, once=Once.of(request, request.request_id))
        return prices_pb2.CreatePriceResponse(price=price_row_message(added))

    async def ListPriceHistory(
        self, request: prices_pb2.ListPriceHistoryRequest, context: Context
    ) -> prices_pb2.ListPriceHistoryResponse:
        """A page of prices."""
        deployment = check_text("deployment", request.deployment, required=False)
        in_force = time_of("in_force_time", request.in_force_time) if request.HasField("in_force_time") else None
        listing = f"prices/{deployment}/{in_force}"
        rows, token = await self._page(request, PRICES, deployment, listing, in_force)
        return prices_pb2.ListPriceHistoryResponse(
            prices=[price_row_message(price) for price in rows], next_page_token=token
        )

    async def CreateExchangeRate(
        self, request: prices_pb2.CreateExchangeRateRequest, context: Context
    ) -> prices_pb2.CreateExchangeRateResponse:
        """Add a rate."""
        asked = datetime.now(UTC)
        rate = rate_of(request, asked)
        if rate.currency_code == self._book.base_currency:
            raise FieldInvalid("currency_code", "must not be the base currency: it is worth one of itself")
        added = await self._store.create(RATES, rate, asked=asked, once=Once.of(request, request.request_id))
        return prices_pb2.CreateExchangeRateResponse(exchange_rate=rate_message(added))

    async def ListExchangeRates(
        self, request: prices_pb2.ListExchangeRatesRequest, context: Context
    ) -> prices_pb2.ListExchangeRatesResponse:
        """A page of rates."""
        code = check_currency("currency_code", request.currency_code) if request.currency_code else ""
        rows, token = await self._page(request, RATES, code, f"exchange-rates/{code}")
        return prices_pb2.ListExchangeRatesResponse(
            exchange_rates=[rate_message(rate) for rate in rows], next_page_token=token
        )

    async def CreateMargin(
        self, request: prices_pb2.CreateMarginRequest, context: Context
    ) -> prices_pb2.CreateMarginResponse:
        """Add a margin."""
        asked = datetime.now(UTC)
        await self._check_tenant(request.tenant_id)
        margin = margin_of(request, asked)
        added = await self._store.create(MARGINS, margin, asked=asked, once=Once.of(request, request.request_id))
        return prices_pb2.CreateMarginResponse(margin=margin_message(added))

    async def ListMargins(
        self, request: prices_pb2.ListMarginsRequest, context: Context
    ) -> prices_pb2.ListMarginsResponse:
        """A page of margins."""
        await self._check_tenant(request.tenant_id)
        rows, token = await self._page(request, MARGINS, request.tenant_id, f"margins/{request.tenant_id}")
        return prices_pb2.ListMarginsResponse(
            margins=[margin_message(margin) for margin in rows], next_page_token=token
        )

    async def ExportPriceBook(
        self, request: prices_pb2.ExportPriceBookRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        """The whole book."""
        table = _is_table(request)
        text = (as_csv if table else as_yaml)(*await self._store.all())
        kind = "text/csv; charset=utf-8" if table else "application/yaml; charset=utf-8"
        return httpbody_pb2.HttpBody(content_type=kind, data=text.encode())

    async def ImportPriceBook(
        self, request: prices_pb2.ImportPriceBookRequest, context: Context
    ) -> prices_pb2.ImportPriceBookResponse:
        """Add what a file says."""
        if len(request.text) > LONGEST_FILE:
            raise FieldInvalid("text", f"must not be longer than {LONGEST_FILE} characters")
        try:
            listed = price_list(request.text, self._book.base_currency, table=_is_table(request))
            return prices_pb2.ImportPriceBookResponse(row_count=await self._store.add(listed))
        except (ValueError, PriceConflict) as error:
            raise FieldInvalid("text", str(error)) from None

    async def _page(
        self,
        request: ListRequest,
        kind: Kind[Row],
        name: str,
        listing: str,
        in_force_time: datetime | None = None,
    ) -> tuple[list[Row], str]:
        size = pagination.page_size(request.page_size)
        after = pagination.position(request.page_token, listing, str)
        found = await self._store.page(kind, name, most=size + 1, after=after, in_force_time=in_force_time)
        rows, last = pagination.split(found, size)
        return list(rows), pagination.token(listing, last.effective_time, getattr(last, kind.name)) if last else ""

    async def _check_tenant(self, tenant_id: str) -> None:
        """Raises when the caller sees no such tenant."""
        await self._currency_of(visible_tenant(tenant_id))


def _is_table(request: prices_pb2.ExportPriceBookRequest | prices_pb2.ImportPriceBookRequest) -> bool:
    return enum_word("format", prices_pb2.PriceBookFormat, request.format) == "csv"

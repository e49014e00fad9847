"""JSON logs that carry the request id, the tenant and the trace."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from meshkit.identity import current_identity


def get_logger() -> FilteringBoundLogger:
    """A logger: `log.info("event_name", key=value)`. Never pass prompts, answers or secrets."""
    return cast(FilteringBoundLogger, structlog.get_logger())


def configure_logging(room: str, level: str) -> None:
    """Send this process's logs, the libraries' too, to standard output as one JSON object a line."""
    shared: list[Any] = [
        _with_context(room),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(ensure_ascii=False)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    renderer = structlog.stdlib.ProcessorFormatter(
        processor=structlog.processors.JSONRenderer(ensure_ascii=False), foreign_pre_chain=shared
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(renderer)
    # Libraries log requests with their URLs at info; ours say enough.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def _with_context(room: str) -> Any:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = room
        identity = current_identity()
        if identity.request_id:
            event["request_id"] = identity.request_id
        if identity.tenant_id:
            event["tenant"] = identity.tenant_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = trace.format_trace_id(span.trace_id)
        return event

    return add

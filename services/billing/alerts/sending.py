"""Carries alerts out: one message for all that wait."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from email.message import EmailMessage
from typing import TypeAlias

import aiohttp

from meshkit.log import get_logger
from services.billing.alerts.alert import Delivery
from services.billing.alerts.channels import Channel, EmailChannel, WebhookChannel

Send: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Carries deliveries; raises DeliveryFailed when they must be carried again."""
COLOURS = {"low": "#439fe0", "medium": "#daa038", "high": "#e8590c", "critical": "#c92a2a"}

log = get_logger()


class DeliveryFailed(Exception):
    """The receiver is away, or does not take it."""


def sender(channel: Channel, http: aiohttp.ClientSession) -> Send:
    """What carries alerts through a channel."""

    async def send(deliveries: Sequence[Delivery]) -> None:
        if isinstance(channel, WebhookChannel):
            await _post(channel, http, deliveries)
        elif isinstance(channel, EmailChannel):
            await asyncio.to_thread(_mail, channel, deliveries)
        else:
            _log(deliveries)

    return send


def slack_message(deliveries: Sequence[Delivery]) -> dict[str, object]:
    """What Slack's incoming webhooks take."""
    return {
        "text": _escaped(_subject(deliveries)),
        "attachments": [
            {
                "color": COLOURS[delivery.alert.severity],
                "title": _escaped(delivery.alert.title),
                "text": _escaped(_body(delivery)),
                "ts": int(delivery.create_time.timestamp()),
            }
            for delivery in deliveries
        ],
    }


async def _post(channel: WebhookChannel, http: aiohttp.ClientSession, deliveries: Sequence[Delivery]) -> None:
    timeout = aiohttp.ClientTimeout(total=channel.timeout_seconds)
    try:
        async with http.post(
            channel.url.get_secret_value(), json=slack_message(deliveries), timeout=timeout, allow_redirects=False
        ) as answer:
            if not answer.ok:
                raise DeliveryFailed(f"the receiver answered {answer.status}")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise DeliveryFailed(type(error).__name__) from error


def _mail(channel: EmailChannel, deliveries: Sequence[Delivery]) -> None:
    message = EmailMessage()
    message["From"], message["To"] = channel.sender, ", ".join(channel.to)
    message["Subject"] = " ".join(_subject(deliveries).split())
    message.set_content("\n\n".join(f"{delivery.alert.title}\n{_body(delivery)}" for delivery in deliveries))
    try:
        with smtplib.SMTP(channel.host, channel.port, timeout=channel.timeout_seconds) as server:
            if channel.starttls:
                server.starttls(context=ssl.create_default_context())
            if channel.user:
                server.login(channel.user, channel.password.get_secret_value())
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise DeliveryFailed(type(error).__name__) from error


def _log(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        alert = delivery.alert
        log.warning(
            "alert",
            kind=alert.kind,
            of=alert.tenant_id,
            severity=alert.severity,
            title=alert.title,
            text=alert.text,
            repeats=delivery.repeats,
        )


def _subject(deliveries: Sequence[Delivery]) -> str:
    first = deliveries[0].alert.title
    return first if len(deliveries) == 1 else f"{first}, and {len(deliveries) - 1} more alerts"


def _body(delivery: Delivery) -> str:
    again = f"\n{delivery.repeats} more of these were not told apart." if delivery.repeats else ""
    return delivery.alert.text + again


def _escaped(text: str) -> str:
    """Slack reads these three as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

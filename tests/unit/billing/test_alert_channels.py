"""What a file of alert channels may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.billing.alerts.alert import Alert
from services.billing.alerts.channels import WebhookChannel, read_channels


def alert(**fields: str) -> Alert:
    plain = {"kind": "violation", "tenant_id": "acme", "severity": "high", "title": "t", "text": "x"}
    return Alert(**{**plain, "fingerprint": "f", **fields})


def test_without_a_file_alerts_go_to_the_log() -> None:
    assert [channel.via for channel in read_channels(None)] == ["log"]


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOC_TOKEN", "s3cret")
    (tmp_path / "c.yaml").write_text(
        "channels: [{name: soc, via: webhook, url: 'https://hooks.example/$SOC_TOKEN', tenants: [acme]}]"
    )
    (channel,) = read_channels(tmp_path / "c.yaml")
    assert isinstance(channel, WebhookChannel)
    assert channel.url.get_secret_value() == "https://hooks.example/s3cret"
    assert "s3cret" not in repr(channel)
    assert channel.carries(alert())
    assert not channel.carries(alert(tenant_id="beta"))
    assert not channel.carries(alert(severity="medium"))


@pytest.mark.parametrize(
    "text",
    [
        "channels: [{name: a, via: pigeon}]",
        "channels: [{name: a, via: webhook}]",
        "channels: [{name: a, via: log}, {name: a, via: log}]",
        "channels: [{name: a, via: email, host: h, sender: s, to: []}]",
        "channels: [{name: a, via: log, colour: red}]",
        "[]",
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml"):
        read_channels(tmp_path / "c.yaml")

"""What the routes may say of endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import TypeAdapter, ValidationError

from meshkit.egress import Region
from services.router.deployment import Deployment
from services.router.endpoints import AnyDeployment

COMMON = {"name": "d", "provider": "p", "model": "m", "serves": "m", "context_tokens": 100}
GIGACHAT = {**COMMON, "adapter": "gigachat", "credential": "env:KEY"}
YANDEX = {**COMMON, "adapter": "yandex", "credential": "env:KEY", "folder": "b1g"}
OPENAI = {**COMMON, "adapter": "openai", "base_url": "https://cloud.example/v1", "region": "global"}
CLOUDRU = {**COMMON, "adapter": "cloudru", "credential": "env:KEY", "key_id": "env:ID", "region": "russia"}

_deployment: TypeAdapter[Deployment] = TypeAdapter(AnyDeployment)


def complaint(entry: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        _deployment.validate_python({**entry, **changes})
    return " ".join(error["msg"] for error in caught.value.errors())


def test_the_providers_of_the_country_need_only_what_differs():
    for entry in (GIGACHAT, YANDEX, CLOUDRU):
        deployment = _deployment.validate_python(entry)
        assert deployment.region is Region.RUSSIA
        assert deployment.base_url.startswith("https://")


@pytest.mark.parametrize(
    "url",
    ["https://dashscope.aliyuncs.com/compatible-mode/v1", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"],
)
def test_qwen_at_its_maker_is_across_the_border_whatever_the_file_says(url):
    for region in ("russia", "local", "eu"):
        assert "region must be global" in complaint(OPENAI, base_url=url, region=region)
    assert _deployment.validate_python({**OPENAI, "base_url": url}).region is Region.GLOBAL


def test_no_clever_spelling_of_a_host_moves_it():
    url = "https://DashScope.aliyuncs.com.:443/v1"
    assert "region must be global" in complaint(OPENAI, base_url=url, region="russia")


def test_a_deployment_claims_no_more_than_its_adapter_can():
    assert "cannot do vision" in complaint(GIGACHAT, capabilities=["vision", "tools"])
    assert "cannot do vision" in complaint(YANDEX, capabilities=["vision"])


def test_secrets_never_go_unencrypted():
    assert "token_url must be https" in complaint(GIGACHAT, token_url="http://ngw.example/oauth")
    assert "token_url must be https" in complaint(CLOUDRU, token_url="http://iam.example/token")
    assert "token_url must be https" in complaint(YANDEX, token_url="http://iam.example/tokens")
    assert "base_url must be https" in complaint(YANDEX, base_url="http://llm.example/v1")


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, "https://gigachat.devices.sberbank.ru/api/v1"),
        ({"api": "v2"}, "https://gigachat.devices.sberbank.ru/api/v2"),
        ({"api": "v2", "base_url": "https://api.giga.chat/v1/"}, "https://api.giga.chat/v2"),
        ({"api": "v2", "base_url": "https://gateway.example/gigachat"}, "https://gateway.example/gigachat"),
    ],
)
def test_gigachats_version_2_is_below_the_same_address(changes, asked):
    assert _deployment.validate_python({**GIGACHAT, **changes}).chat_base_url == asked


def test_a_certificate_file_holds_authorities(tmp_path: Path):
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "wrong.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "good.pem"))
    for name in ("empty.pem", "wrong.pem", "missing.pem"):
        assert "certificate authority" in complaint(GIGACHAT, ca_file=tmp_path / name)
    assert _deployment.validate_python({**GIGACHAT, "ca_file": tmp_path / "good.pem"})


def test_certificates_are_always_checked():
    for field in ("verify", "verify_tls", "ssl_verify", "insecure"):
        assert "Extra inputs are not permitted" in complaint(GIGACHAT, **{field: False})


def test_prompts_are_kept_by_yandex_only_where_nothing_but_public_data_goes():
    assert "data_classes" in complaint(YANDEX, log_prompts=True)
    assert "data_classes" in complaint(YANDEX, log_prompts=True, data_classes=["public", "internal"])
    assert _deployment.validate_python({**YANDEX, "log_prompts": True, "data_classes": ["public"]})


def test_yandex_is_known_by_a_credential_or_by_its_machine():
    assert "credential" in complaint(YANDEX, credential=None)
    assert "credential" in complaint(YANDEX, auth="metadata")
    assert _deployment.validate_python({**YANDEX, "auth": "metadata", "credential": None})


def test_a_yandex_model_is_named_without_its_folder():
    assert "name alone" in complaint(YANDEX, model="gpt://b1g/yandexgpt/latest")


def test_values_from_the_environment_are_known_by_their_place():
    assert _deployment.validate_python(CLOUDRU).references == {"credential": "env:KEY", "key_id": "env:ID"}
    assert _deployment.validate_python(YANDEX).references == {"credential": "env:KEY", "folder": "b1g"}

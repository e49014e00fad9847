"""The native REST API of Yandex AI Studio as the scripted provider speaks it; strict about what it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.support.provider_script import Script
from tests.support.scripted_http import Received
from tests.support.scripted_reply import Asked, Figures, Reply, tokens, vector

ACCOUNT_TOKENS = "/iam/v1/tokens"
METADATA = "/computeMetadata/v1/instance/service-accounts/default/token"
TASKS = {
    ("POST", "/foundationModels/v1/completion"): "chat",
    ("POST", "/foundationModels/v1/textEmbedding"): "embeddings",
    ("GET", METADATA): "token",
    ("POST", ACCOUNT_TOKENS): "token",
}
KEY_ID = "ajekey"
ACCOUNT_ID = "ajeaccount"
FIELDS = {
    "modelUri", "completionOptions", "messages", "tools", "toolChoice", "parallelToolCalls", "jsonObject", "jsonSchema",
}  # fmt: skip
OPTIONS = {"stream", "temperature", "maxTokens", "reasoningOptions"}
STATUSES = {
    "stop": "ALTERNATIVE_STATUS_FINAL",
    "length": "ALTERNATIVE_STATUS_TRUNCATED_FINAL",
    "tool_calls": "ALTERNATIVE_STATUS_TOOL_CALLS",
    "content_filter": "ALTERNATIVE_STATUS_CONTENT_FILTER",
}


class YandexWire:
    """Yandex."""

    root = "/foundationModels/v1"
    stream_type = "application/json"
    malformed = b'{"result":{"alternatives":[{"message":{"role":"assis\n'
    done = b""
    tokens_needed = False

    def task(self, received: Received) -> str:
        return TASKS.get((received.method, received.path), "")

    def asked(self, received: Received) -> Asked:
        body = orjson.loads(received.body)
        _check(body)
        texts = [_text(message) for message in body["messages"]]
        options = body["completionOptions"]
        return Asked(
            model=body["modelUri"],
            prompt=" ".join(texts),
            last=texts[-1],
            tool=_tool_called(body),
            limit=int(options.get("maxTokens", "0")),
            streams=bool(options.get("stream")),
            tells_usage=True,
        )

    def writer(self, reply: Reply, tells_usage: bool) -> YandexWriter:
        return YandexWriter(reply, tells_usage)

    def embeddings(self, received: Received, script: Script) -> bytes:
        body = received.json()
        if not body["modelUri"].startswith("emb://") or not isinstance(body["text"], str):
            raise ValueError("an embedding takes one text and an emb:// model")
        count = str(len(tokens(body["text"])))
        return orjson.dumps(
            {"embedding": vector(body["text"], script.dimensions), "numTokens": count, "modelVersion": "07.02.2025"}
        )

    def error(self, status: int, message: str, code: str | None = None) -> bytes:
        error = {"grpcCode": 3, "httpCode": status, "message": message, "httpStatus": "Bad", "details": []}
        return orjson.dumps({"error": error})

    def broken(self, message: str, code: str | None) -> bytes:
        return self.error(500, message) + b"\n"

    def too_long(self) -> tuple[int, str, str]:
        return (
            400,
            "Error in session internal_id=a&request_id=b: number of input tokens must be no more than 10, got 99",
            "",
        )

    def token(self, received: Received, value: str, seconds: float) -> bytes:
        """What the metadata service of a machine answers."""
        if received.headers.get("metadata-flavor") != "Google":
            raise ValueError("Metadata-Flavor is missing")
        return orjson.dumps({"access_token": value, "expires_in": int(seconds), "token_type": "Bearer"})


class YandexTokenWire(YandexWire):
    """The same, for the IAM tokens of a machine."""

    tokens_needed = True


class YandexAccountWire(YandexTokenWire):
    """The same, for the IAM tokens of a service account that signs for itself."""

    def token(self, received: Received, value: str, seconds: float) -> bytes:
        """A claim of the account, for this very address and no longer than an hour, is exchanged."""
        claim = jwt.decode(received.json()["jwt"], account_key(), algorithms=["PS256"])
        rules = jwt.JWTClaimsRegistry(iss={"essential": True, "value": ACCOUNT_ID}, exp={"essential": True})
        rules.validate(claim.claims)
        if claim.header["kid"] != KEY_ID or not claim.claims["aud"].endswith(ACCOUNT_TOKENS):
            raise ValueError("a claim names its key and this address")
        if claim.claims["exp"] - claim.claims["iat"] > 3600:
            raise ValueError("a claim holds for an hour at most")
        ends = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        return orjson.dumps({"iamToken": value, "expiresAt": f"{ends}789Z"})


@cache
def account_key() -> RSAKey:
    """The key of the service account, made anew in each run."""
    return RSAKey.generate_key(2048)


def account_key_file() -> str:
    """The key as the cloud's tools write it, first line of the PEM and all."""
    pem = account_key().as_pem(private=True).decode()
    warned = f"PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <{KEY_ID}>\n{pem}"
    written = {"id": KEY_ID, "service_account_id": ACCOUNT_ID, "key_algorithm": "RSA_2048", "private_key": warned}
    return orjson.dumps(written).decode()


class YandexWriter:
    """One JSON object a line, each with the whole answer so far."""

    def __init__(self, reply: Reply, tells_usage: bool) -> None:
        self._reply = reply
        self._tells_usage = tells_usage

    def opening(self) -> bytes:
        return b""

    def tokens(self) -> Iterator[bytes]:
        if self._reply.tool:
            return
        said = ""
        for piece in self._reply.pieces:
            said += piece
            yield self._line({"role": "assistant", "text": said}, "ALTERNATIVE_STATUS_PARTIAL")

    def ending(self) -> bytes:
        text = "".join(self._reply.pieces)
        message: dict[str, Any] = {"role": "assistant", "text": text}
        if self._reply.tool:
            call = {"functionCall": {"name": self._reply.tool, "arguments": _arguments(text)}}
            message = {"role": "assistant", "toolCallList": {"toolCalls": [call]}}
        return self._line(message, STATUSES[self._reply.finish_reason])

    def _line(self, message: dict[str, Any], status: str) -> bytes:
        result: dict[str, Any] = {
            "alternatives": [{"message": message, "status": status}],
            "modelVersion": "18.01.2025",
        }
        if self._tells_usage:
            result["usage"] = _usage(self._reply.usage)
        return orjson.dumps({"result": result}) + b"\n"


def _arguments(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _usage(figures: Figures) -> dict[str, Any]:
    return {
        "inputTextTokens": str(figures.prompt),
        "completionTokens": str(figures.completion),
        "totalTokens": str(figures.total),
        "completionTokensDetails": {"reasoningTokens": str(figures.reasoning)},
    }


def _text(message: dict[str, Any]) -> str:
    if results := message.get("toolResultList"):
        return " ".join(each["functionResult"]["content"] for each in results["toolResults"])
    return message.get("text", "")


def _tool_called(body: dict[str, Any]) -> str:
    choice = body.get("toolChoice", {})
    if not body.get("tools") or choice.get("mode") == "NONE" or "toolResultList" in body["messages"][-1]:
        return ""
    return choice.get("functionName") or body["tools"][0]["function"]["name"]


def _check(body: Any) -> None:
    """Refuse what the real one refuses."""
    options = body["completionOptions"]
    if unknown := sorted((set(body) - FIELDS) | (set(options) - OPTIONS)):
        raise ValueError(f"unknown fields {unknown}")
    if not body["modelUri"].startswith("gpt://") or body["modelUri"].count("/") != 4:
        raise ValueError("modelUri is gpt://folder/model/branch")
    if not 0 <= options.get("temperature", 0) <= 1 or not isinstance(options.get("maxTokens", ""), str):
        raise ValueError("temperature lies in [0, 1], maxTokens is a string")
    for message in body["messages"]:
        if len({"text", "toolCallList", "toolResultList"} & set(message)) != 1:
            raise ValueError("a message holds exactly one of text, toolCallList and toolResultList")
        for call in message.get("toolCallList", {}).get("toolCalls", ()):
            if not isinstance(call["functionCall"]["arguments"], dict):
                raise ValueError("arguments must be an object")

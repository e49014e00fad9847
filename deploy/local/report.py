"""What a started mesh tells: `mesh.env` for scripts, three commands for people."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import yaml

from deploy.local.keys import TENANT
from deploy.local.launch import Launch
from deploy.local.settings import LocalSettings
from deploy.local.stores import database_url


def write_mesh_env(settings: LocalSettings, launch: Launch) -> Path:
    """Write how to reach this mesh, readable by its owner alone: it holds keys."""
    ports = launch.ports
    variables: dict[str, object] = {
        "LLMMESH_URL": launch.url,
        "LLMMESH_GRPC": launch.url.removeprefix("http://"),
        "LLMMESH_API_KEY": launch.keys.developer,
        "LLMMESH_ADMIN_KEY": launch.keys.admin,
        "LLMMESH_TENANT": TENANT,
        "LLMMESH_LOG_DIR": settings.log,
        "LLMMESH_MESH_ADDRESS": f"127.0.0.1:{ports.mesh}",
        "LLMMESH_ENVOY_ADMIN_URL": f"http://127.0.0.1:{ports.admin}",
        "LLMMESH_ENVOY_METRICS_URL": f"http://127.0.0.1:{ports.status}/stats/prometheus",
        "LLMMESH_REDIS_URL": f"unix://{settings.redis_socket}",
        "LLMMESH_DATABASE_URL": database_url(settings),
        **{f"{_prefix(name)}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.services.items()},
        **{f"{_prefix(name)}_METRICS_URL": f"http://127.0.0.1:{port}/metrics" for name, port in ports.metrics.items()},
    }
    lines = [f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items()]
    settings.mesh_env.touch(mode=0o600)
    settings.mesh_env.chmod(0o600)
    settings.mesh_env.write_text("".join(lines))
    return settings.mesh_env


def _prefix(process: str) -> str:
    return f"LLMMESH_{process.upper().replace('-', '_')}"


def read_mesh_env(settings: LocalSettings) -> dict[str, str]:
    """What the last start wrote; empty when there was none."""
    if not settings.mesh_env.exists():
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in settings.mesh_env.read_text().splitlines())
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def welcome(settings: LocalSettings) -> str:
    """The address, a key, and three commands to paste where a model can answer them."""
    mesh, model = read_mesh_env(settings), _model(settings)
    url, key = mesh["LLMMESH_URL"], mesh["LLMMESH_API_KEY"]
    access = _ACCESS.format(url=url, key=key, log=settings.log)
    return access + (_COMMANDS.format(url=url, key=key, model=model, python=sys.executable) if model else _NO_MODEL)


def _model(settings: LocalSettings) -> str:
    """A chat model of the routes, one that this machine has loaded before any other; empty when there is none."""
    deployments = yaml.safe_load(settings.routes.read_bytes())["deployments"]
    chats = [each for each in deployments if not each.get("embeds") and not each.get("shadow")]
    loaded = {pair.partition("=")[0] for pair in settings.chat_models.split(",")}
    here: list[str] = [each["serves"] for each in chats if each["adapter"] == "local" and each["model"] in loaded]
    elsewhere: list[str] = [each["serves"] for each in chats if each["adapter"] != "local"]
    return next(iter([*here, *elsewhere]), "")


_ACCESS = """
  URL  {url}/v1
  Key  {key}
  Logs {log}
"""

_NO_MODEL = """
No chat model is served: LLMMESH_LOCAL_MODELS loads those of this machine, the routes name others; see docs/running.md.
"""

_COMMANDS = """
# One answer
curl -s {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

# The same, as it is spoken
curl -sN {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Tell me about the sea."}}]}}'

# From Python, with the official client
{python} - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
messages = [{{"role": "user", "content": "What is the capital of France?"}}]
for chunk in client.chat.completions.create(model="{model}", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
END
"""

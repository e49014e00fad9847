"""What the documents of money and access tell people to paste, pasted: against a real mesh."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.fix_mesh import Mesh, Tenant
from tests.support.scripted_provider import ScriptedProvider

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(sh|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATUS = re.compile(r"HTTP/[\d.]+ (\d{3}) ")
STRICT = """
set -euo pipefail
curl() { command curl --fail-with-body --show-error "$@"; }
ADMIN="authorization: Bearer $LLMMESH_ADMIN_KEY"
"""
NO_ROWS = ("spent_micros <>", "reserved_micros <>", "IS DISTINCT FROM", "margin_micros <>")
"""What the queries look for of which the document says that they find nothing."""


def blocks(language: str, needed: str, *, unless: tuple[str, ...] = ()) -> list[Any]:
    """Every block of the two documents that says `needed` and nothing else, named by document and number."""
    return [
        pytest.param(text, id=f"{name}-{number}")
        for name in ("billing", "access")
        for number, (kind, text) in enumerate(BLOCK.findall((DOCS / f"{name}.md").read_text()))
        if kind == language and needed in text and not any(words in text for words in unless)
    ]


@pytest.fixture
async def person(mesh: Mesh, first: ScriptedProvider) -> Tenant:
    """A tenant with something on its books."""
    tenant = await mesh.tenant()
    await tenant.key(team_id="research")
    (await tenant.chat("What do documents say?")).raise_for_status()
    await tenant.usage(1)
    return tenant


async def pasted(block: str, tenant: Tenant, folder: Path, *, strict: bool = True) -> str:
    """What a block prints for a tenant in place of the demo's; fails when a command does, unless it is not strict."""
    names = {"tenants/demo": f"tenants/{tenant.id}", "KEY_ID": tenant.key_id, "acme": f"{tenant.id}-acme"}
    # The model of one's own machine takes a while to load.
    names['{"prompt"'] = '{"model": "scripted", "prompt"'
    for name, own in names.items():
        block = block.replace(name, own)
    settings = {"LLMMESH_URL": tenant.mesh.url, "LLMMESH_API_KEY": tenant.token}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", (STRICT if strict else "") + block,
        env={**os.environ, **tenant.mesh.settings, **settings}, cwd=folder, stdout=-1, stderr=-2,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    said = output.decode(errors="replace")
    assert process.returncode == 0 or not strict, said
    return said


@pytest.mark.parametrize("block", blocks("sh", "curl -s ", unless=("curl -si ", "REQUEST_ID")))
async def test_a_command_does_what_it_is_there_for(block: str, person: Tenant, tmp_path: Path) -> None:
    await pasted(block, person, tmp_path)


@pytest.mark.parametrize("block", blocks("sh", "curl -si "))
async def test_a_command_whose_status_matters_gets_the_status_it_says(
    block: str, person: Tenant, tmp_path: Path
) -> None:
    said = [status for line in block.splitlines() for status in re.findall(r"\b[245]\d\d\b", line.partition(" # ")[2])]
    output = await pasted(block, person, tmp_path, strict=False)
    assert STATUS.findall(output) == said, output


@pytest.mark.parametrize("query", blocks("sql", "SELECT"))
async def test_a_query_runs_and_finds_no_mistake(query: str, mesh: Mesh, person: Tenant) -> None:
    dsn = f"host={mesh.var / 'run' / 'postgres'} user=llmmesh dbname=llmmesh"
    for statement in query.strip().rstrip(";").split(";\n"):
        with psycopg.connect(dsn) as database:
            rows = database.execute(statement.replace("'demo'", f"'{person.id}'").encode()).fetchall()
        assert not rows or not any(mistake in statement for mistake in NO_ROWS), rows

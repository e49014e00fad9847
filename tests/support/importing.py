"""Runs the command that stores question and answer pairs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.support.fix_mesh import Tenant


async def imported(tenant: Tenant, folder: Path, pairs: dict[str, str]) -> dict[str, int]:
    """Import answers by question for a tenant; returns how many went where, in the words of the command."""
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"question": asked, "answer": said}) for asked, said in pairs.items()))
    command = [sys.executable, "-m", "services.cache.command", "import", str(file), "--model", "scripted"]
    target = tenant.mesh.settings["LLMMESH_MESH_ADDRESS"]
    done = await asyncio.create_subprocess_exec(
        *command, "--tenant", tenant.id, "--target", target, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await done.communicate()
    assert done.returncode == 0
    return {line.split(maxsplit=1)[1]: int(line.split()[0]) for line in output.decode().splitlines()}

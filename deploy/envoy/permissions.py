"""Who may call what, as a table: `python -m deploy.envoy.permissions` brings docs/access.md up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.envoy.catalogue import Method, read_methods

PAGE = Path(__file__).parents[2] / "docs" / "access.md"
ROLES = ("admin", "operator", "finance", "auditor", "developer", "service")
BEGIN, END = "<!-- generated: permissions -->\n", "<!-- end of generated -->"


def table(methods: Sequence[Method]) -> str:
    """Every RPC the edge routes, with its REST paths and the roles that may call it."""
    lines = [
        f"| RPC | REST | {' | '.join(ROLES)} |",
        f"|---|---|{'---|' * len(ROLES)}",
        *(_row(method) for method in methods if method.exposed),
    ]
    return "\n".join(lines) + "\n"


def inserted(page: str, methods: Sequence[Method]) -> str:
    """The page with the table of today between its marks."""
    head, _, rest = page.partition(BEGIN)
    return head + BEGIN + table(methods) + END + rest.partition(END)[2]


def _row(method: Method) -> str:
    marks = ["anyone" if method.anonymous else "yes" if role in method.roles else "" for role in ROLES]
    name = f"{method.service.removeprefix('llmmesh.')}/{method.name}"
    return f"| `{name}` | {'<br>'.join(f'`{path}`' for path in method.rest)} | {' | '.join(marks)} |"


if __name__ == "__main__":
    PAGE.write_text(inserted(PAGE.read_text(), read_methods()))

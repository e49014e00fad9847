"""Alerts and dashboard: every expression parses, and every series and label it names exists."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY

from deploy.envoy.catalogue import ROOMS
from services.router.providers.provider import FailureKind
from tests.support.fix_envoy import running_envoy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
TARGET_LABELS = {"job", "instance", "le"}
SCRAPED = {"up": frozenset({"job", "instance"})}
"""What Prometheus itself adds of each target."""

Series = dict[str, frozenset[str]]
"""Labels by metric name."""


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "grafana" / "llmmesh.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    """Every expression that ships."""
    shown = [target["expr"].replace("$__rate_interval", "5m") for panel in panels() for target in panel["targets"]]
    return [rule["expr"] for rule in alerts()] + shown


def selectors(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every selector inside a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from selectors(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from selectors(argument)


def first_matcher(alert: str) -> Any:
    """The only matcher of the first selector of an alert."""
    [expression] = [rule["expr"] for rule in alerts() if rule["alert"] == alert]
    [matcher] = next(selectors(promql_parser.parse(expression))).matchers.matchers
    return matcher


def scrape_jobs(file: str) -> list[dict[str, Any]]:
    """The jobs of a scrape configuration."""
    jobs: list[dict[str, Any]] = yaml.safe_load((FOLDER / file).read_text())["scrape_configs"]
    return jobs


def groupings(expression: str) -> set[str]:
    """Labels an expression groups by."""
    return {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}


@pytest.fixture(scope="module")
def own_series() -> Series:
    """What our services expose."""
    for name in ("metrics", "egress"):
        importlib.import_module(f"meshkit.{name}")
    for path in (ROOT / "services").glob("*/*.py"):
        if path.stem in ("measures", "metrics"):
            importlib.import_module(f"services.{path.parent.name}.{path.stem}")
    # The registry has no public way to ask a metric for its label names.
    collectors: Any = REGISTRY._names_to_collectors
    return {name: frozenset(getattr(collector, "_labelnames", ())) for name, collector in collectors.items()}


@pytest.fixture(scope="module")
async def envoy_series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """What Envoy exposes."""
    async with running_envoy({}, tmp_path_factory.mktemp("envoy")) as envoy, httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{envoy.status_port}/stats/prometheus")).text
    found: dict[str, frozenset[str]] = {}
    for name, labels in re.findall(r"^(envoy_\w+)(?:\{([^}]*)\})?", text, re.MULTILINE):
        found[name] = found.get(name, frozenset()) | frozenset(re.findall(r'(\w+)="', labels))
    return found


@pytest.mark.parametrize("expression", expressions())
def test_every_series_and_label_exists(expression: str, own_series: Series, envoy_series: Series) -> None:
    known = {**envoy_series, **own_series, **SCRAPED}
    labels: set[str] = set(TARGET_LABELS)
    for selector in selectors(promql_parser.parse(expression)):
        assert selector.name in known
        labels |= known[str(selector.name)]
        assert {matcher.name for matcher in selector.matchers.matchers} <= known[str(selector.name)]
    assert groupings(expression) <= labels


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_a_deployment_that_has_only_ever_failed_is_noticed() -> None:
    matcher = first_matcher("DeploymentFailing")
    assert matcher.op == promql_parser.MatchOp.NotRe
    outcomes = ("completed", "cancelled", "broken", *FailureKind)
    its_own = {kind for kind in FailureKind if not kind.is_of_the_request}
    noticed = {outcome for outcome in outcomes if not re.fullmatch(matcher.value, outcome)}
    assert noticed == {"broken", FailureKind.NOT_FOUND, *its_own}


@pytest.mark.parametrize("file", ["prometheus.yaml", "prometheus-kubernetes.yaml"])
def test_every_target_that_is_scraped_is_missed_when_it_is_down(file: str) -> None:
    matcher = first_matcher("TargetDown")
    assert all(re.fullmatch(matcher.value, job["job_name"]) for job in scrape_jobs(file))


def test_alert_names_are_unique() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(places) == len(set(places))


def test_prometheus_scrapes_every_service_and_envoy_of_the_compose_file() -> None:
    jobs = scrape_jobs("prometheus.yaml")
    targets = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    assert targets == {f"{name}:9090" for name in (*ROOMS, "envoy")}

"""Experiments as messages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.router.v1 import router_pb2
from meshkit.lots import Unit
from services.router.experiments.measures import Measure
from services.router.experiments.plan import Experiment
from services.router.experiments.significance import Interval
from services.router.experiments.tally import Tally
from services.router.experiments.trials import Version
from services.router.experiments.verdicts import Comparison, Findings, Verdict

PERCENT = 100
UNITS = {unit: router_pb2.ExperimentUnit.Value(f"EXPERIMENT_UNIT_{unit.name}") for unit in Unit}
MEASURES = {measure: router_pb2.Measure.Value(f"MEASURE_{measure.name}") for measure in Measure}
VERDICTS = {verdict: router_pb2.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}


def split(versions: Sequence[Version]) -> router_pb2.Split:
    """How requests are to be assigned to the variants of an experiment."""
    experiment = versions[0].experiment
    return router_pb2.Split(
        experiment=experiment.name,
        unit=UNITS[experiment.unit],
        share=experiment.share_percent / PERCENT,
        tags=sorted(experiment.tags),
        variants=[
            router_pb2.SplitVariant(
                version=each.name,
                weight=each.variant.weight,
                deployments=each.variant.deployments,
                added_input_tokens=each.most_added_tokens,
            )
            for each in versions
        ],
    )


def experiment_report(findings: Findings) -> router_pb2.Experiment:
    """An experiment and what is known of it."""
    experiment: Experiment = findings.versions[0].experiment
    return router_pb2.Experiment(
        name=experiment.name,
        model=experiment.model,
        unit=UNITS[experiment.unit],
        share=experiment.share_percent / PERCENT,
        tags=sorted(experiment.tags),
        measure=MEASURES[experiment.measure],
        least_requests=experiment.least_requests,
        variants=_variants(findings),
        comparisons=map(_comparison, findings.comparisons()),
        split_p_value=findings.split_p_value(),
        conclusion=findings.conclusion(),
        shadow=findings.shadow,
    )


def _variants(findings: Findings) -> Iterator[router_pb2.ExperimentVariant]:
    for version, tally in zip(findings.versions, findings.tallies, strict=True):
        estimates, variant = findings.estimates(tally), version.variant
        counted = estimates.get(Measure.ABANDONED)
        yield router_pb2.ExperimentVariant(
            name=variant.name,
            version=version.name,
            weight=variant.weight,
            deployments=variant.deployments,
            prompt=variant.prompt or "",
            begin_time=_begin(tally),
            requests=counted.count if counted else 0,
            left_out=round(tally.left_out),
            groups=counted.groups if counted else 0,
            figures=[
                router_pb2.VariantFigure(
                    measure=MEASURES[measure], count=each.count, mean=each.mean, interval=_interval(each.interval)
                )
                for measure, each in estimates.items()
            ],
        )


def _comparison(comparison: Comparison) -> router_pb2.VariantComparison:
    contrast = comparison.contrast
    told = router_pb2.VariantComparison(
        variant=comparison.version.variant.name,
        measure=MEASURES[comparison.measure],
        difference=contrast.difference,
        verdict=VERDICTS[comparison.verdict],
        lacking=comparison.lacking,
    )
    if not comparison.lacking:
        told.p_value, told.anytime_p_value = contrast.p_value, contrast.anytime_p_value
        told.interval.low, told.interval.high = contrast.interval
        told.anytime_interval.low, told.anytime_interval.high = contrast.anytime_interval
    return told


def _interval(interval: Interval | None) -> router_pb2.Interval | None:
    return None if interval is None else router_pb2.Interval(low=interval[0], high=interval[1])


def _begin(tally: Tally) -> Timestamp | None:
    if tally.since == math.inf:
        return None
    begun = Timestamp()
    begun.FromMicroseconds(int(tally.since * 1_000_000))
    return begun

"""Explanations as messages."""

from __future__ import annotations

import math

from google.protobuf.duration_pb2 import Duration

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from services.router.deployment import Deployment
from services.router.experiments.treatment import Use
from services.router.explaining import Candidate, Explanation, Score
from services.router.ranking import PRICED_TOKENS, Demand
from services.router.rules import Ruling


def route_explanation(explanation: Explanation, demand: Demand) -> router_pb2.RouteExplanation:
    """How a request would be routed."""
    limits, needs, ruling = demand.limits, demand.needs, explanation.ruling
    return router_pb2.RouteExplanation(
        data_class=chat_pb2.DataClass.Value(f"DATA_CLASS_{limits.data_class.name}"),
        residency=chat_pb2.DataResidency.Value(f"DATA_RESIDENCY_{limits.residency.name}"),
        strategy=chat_pb2.RoutingStrategy.Value(f"ROUTING_STRATEGY_{explanation.strategy.name}"),
        strategy_source=explanation.source,
        rules=ruling.rules,
        input_tokens=needs.input_tokens,
        output_tokens=needs.likely_output_tokens,
        candidates=[_candidate(place, each, ruling) for place, each in enumerate(explanation.candidates, 1)],
        variant=demand.treatment.version if demand.treatment and demand.treatment.use is Use.APPLIED else "",
    )


def _candidate(place: int, candidate: Candidate, ruling: Ruling) -> router_pb2.RouteCandidate:
    deployment, score = candidate.deployment, candidate.score
    return router_pb2.RouteCandidate(
        deployment=deployment.name,
        place=place if score else 0,
        reasons=candidate.reasons,
        pause=candidate.pause,
        score=_score(deployment, score, ruling) if score else None,
    )


def _score(deployment: Deployment, score: Score, ruling: Ruling) -> router_pb2.RouteScore:
    first_token = Duration()
    first_token.FromMicroseconds(int(score.first_token_seconds * 1_000_000))
    return router_pb2.RouteScore(
        priority=deployment.priority,
        score=score.value,
        cost_micros=score.cost / PRICED_TOKENS if score.cost < math.inf else None,
        quality=deployment.quality,
        weight=deployment.weight,
        first_token=first_token,
        preferred=deployment.name in ruling.preferred,
    )

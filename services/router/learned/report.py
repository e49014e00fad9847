"""What the bandit knows, for an operator to read."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from llmmesh.router.v1 import router_pb2
from services.router.learned.arm import Arm
from services.router.learned.bandit import NEUTRAL_QUALITY, Bandit
from services.router.learned.context import FEATURES


def learned_report(bandit: Bandit) -> router_pb2.GetLearnedRoutingResponse:
    """The state of every deployment that has outcomes, by name."""
    half_life = Duration()
    half_life.FromSeconds(round(bandit.learning.half_life_seconds))
    return router_pb2.GetLearnedRoutingResponse(
        deployments=[_deployment(bandit, name, arm) for name, arm in sorted(bandit.arms.items())],
        preference=bandit.gamma(bandit.arms),
        half_life=half_life,
    )


def _deployment(bandit: Bandit, name: str, arm: Arm) -> router_pb2.LearnedDeployment:
    success, slowness, cost = arm.outcomes.means.tolist()
    quality = float(arm.feedback.means[0]) if arm.feedback.count else NEUTRAL_QUALITY
    return router_pb2.LearnedDeployment(
        deployment=name,
        outcomes=arm.outcomes.count,
        ratings=arm.feedback.count,
        mean_success=success,
        mean_slowness=slowness,
        mean_cost=cost,
        mean_quality=quality,
        mean_reward=bandit.learning.worth.reward((success, slowness, cost), quality),
        weights=[
            router_pb2.FeatureWeight(feature=feature, weight=weight)
            for feature, weight in zip(FEATURES, bandit.weights(name), strict=True)
        ],
    )

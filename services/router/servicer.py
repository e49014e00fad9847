"""The router's RPCs: decode, call, encode."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.router.v1 import router_pb2
from llmmesh.router.v1.router_pb2_grpc import RouterServiceServicer
from meshkit.errors import ResourceNotFound
from meshkit.identity import current_identity
from meshkit.reloading import LoadStatus, Reloader
from meshkit.server import Context, Last, says_last
from services.router.breaker import BreakerState
from services.router.deployment import Deployment
from services.router.experiments.report import experiment_report, split
from services.router.experiments.verdicts import Findings
from services.router.explaining import Explainer
from services.router.explanations import route_explanation
from services.router.inspection import Inspection, Report
from services.router.learned.report import learned_report
from services.router.lessons import Lessons
from services.router.messages import Message, chosen_route, messages
from services.router.observing import ObservedRouter
from services.router.providers.provider import Health
from services.router.requests import (
    chat_demand,
    checked_judgement,
    data_class_of,
    embedding_demand,
    explained_demand,
)
from services.router.routes import Routes
from services.router.routing import Router
from services.router.vitals import Figures

SEE_ALL = frozenset({"admin", "operator"})
"""Roles that may know of deployments outside their tenant's policy."""

HEALTH = {
    Health.READY: router_pb2.PROVIDER_HEALTH_READY,
    Health.WARMING: router_pb2.PROVIDER_HEALTH_WARMING,
    Health.UNAVAILABLE: router_pb2.PROVIDER_HEALTH_UNAVAILABLE,
}
BREAKER = {
    BreakerState.CLOSED: router_pb2.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: router_pb2.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: router_pb2.BREAKER_STATE_HALF_OPEN,
    BreakerState.RETURNING: router_pb2.BREAKER_STATE_RETURNING,
}


class RouterServicer(RouterServiceServicer):
    """Speaks llmmesh.router.v1."""

    def __init__(
        self,
        router: Router,
        observed: ObservedRouter,
        explainer: Explainer,
        inspection: Inspection,
        reloader: Reloader[Routes],
        learned: Lessons,
    ) -> None:
        self._router = router
        self._observed = observed
        self._explainer = explainer
        self._inspection = inspection
        self._reloader = reloader
        self._learned = learned

    @says_last
    def StreamGenerateChat(
        self, request: router_pb2.StreamGenerateChatRequest, context: Context
    ) -> AsyncGenerator[Message | Last[Message], None]:
        """Route a prompt and stream the answer; a caller who hangs up stops the provider."""
        asker = current_identity()
        demand = chat_demand(request, asker.tenant_id)
        return messages(self._observed.stream_chat(demand, asker), whole=request.whole)

    async def EmbedText(self, request: router_pb2.EmbedTextRequest, context: Context) -> router_pb2.EmbedTextResponse:
        """Embed texts with the best allowed deployment."""
        routed = await self._router.embed(embedding_demand(request, current_identity().tenant_id))
        return router_pb2.EmbedTextResponse(
            embeddings=[router_pb2.Embedding(values=vector) for vector in routed.vectors],
            usage=routed.usage,
            route=chosen_route(routed.chosen),
        )

    async def ExplainRoute(
        self, request: router_pb2.ExplainRouteRequest, context: Context
    ) -> router_pb2.ExplainRouteResponse:
        """How a request would be routed; everything for those who run the mesh."""
        caller = current_identity()
        demand = explained_demand(request, caller.tenant_id)
        demand = self._router.treated(demand, caller)
        explanation = self._explainer.explain(demand, everything=not SEE_ALL.isdisjoint(caller.roles))
        return router_pb2.ExplainRouteResponse(explanation=route_explanation(explanation, demand))

    async def ListModels(
        self, request: router_pb2.ListModelsRequest, context: Context
    ) -> router_pb2.ListModelsResponse:
        """Every public model with its deployments, and how its requests are split."""
        running, shadows = self._router.experiments().values(), self._router.shadows()
        splits = {versions[0].experiment.model: split(versions) for versions in running}
        return router_pb2.ListModelsResponse(
            models=[
                router_pb2.Model(
                    name=name,
                    deployments=map(_deployment, deployments),
                    split=splits.get(name),
                    shadows=(each.deployment.name for each in shadows if each.deployment.serves == name),
                )
                for name, deployments in self._router.models().items()
            ]
        )

    async def ListProviders(
        self, request: router_pb2.ListProvidersRequest, context: Context
    ) -> router_pb2.ListProvidersResponse:
        """The state of every deployment."""
        states = map(_state, await self._inspection.reports())
        return router_pb2.ListProvidersResponse(providers=states, routes=_routes(self._reloader.status))

    async def RecordFeedback(
        self, request: router_pb2.RecordFeedbackRequest, context: Context
    ) -> router_pb2.RecordFeedbackResponse:
        """Judge an answer of the caller's tenant."""
        request_id, score = checked_judgement(request)
        await self._learned.feedback.rate(current_identity().tenant_id, request_id, score)
        return router_pb2.RecordFeedbackResponse()

    async def GetLearnedRouting(
        self, request: router_pb2.GetLearnedRoutingRequest, context: Context
    ) -> router_pb2.GetLearnedRoutingResponse:
        """What the strategy `learned` knows."""
        return learned_report(self._learned.strategy.bandit)

    async def ListExperiments(
        self, request: router_pb2.ListExperimentsRequest, context: Context
    ) -> router_pb2.ListExperimentsResponse:
        """Every experiment, with what is known of its variants."""
        told = map(experiment_report, self._findings().values())
        return router_pb2.ListExperimentsResponse(experiments=told)

    async def GetExperiment(
        self, request: router_pb2.GetExperimentRequest, context: Context
    ) -> router_pb2.GetExperimentResponse:
        """One experiment."""
        findings = self._findings().get(request.name)
        if findings is None:
            raise ResourceNotFound(f"The routes file has no experiment {request.name!r}.", resource=request.name)
        return router_pb2.GetExperimentResponse(experiment=experiment_report(findings))

    def _findings(self) -> dict[str, Findings]:
        """Of every experiment and every shadow, by name."""
        shadows = [each.versions for each in self._router.shadows()]
        running = (*self._router.experiments().values(), *shadows)
        tally = self._learned.tallying.tally
        return {
            versions[0].experiment.name: Findings(
                versions, [tally(each.name) for each in versions], shadow=versions in shadows
            )
            for versions in running
        }


def _deployment(deployment: Deployment) -> router_pb2.Deployment:
    return router_pb2.Deployment(
        name=deployment.name,
        provider=deployment.provider,
        region=deployment.region,
        data_classes=sorted(map(data_class_of, deployment.data_classes)),
        context_tokens=deployment.context_tokens,
        embeds=deployment.embeds,
    )


def _state(report: Report) -> router_pb2.ProviderState:
    return router_pb2.ProviderState(
        deployment=_deployment(report.deployment),
        health=HEALTH[report.condition.health],
        detail=report.condition.detail,
        breaker=BREAKER[report.breaker],
        share_percent=report.share_percent,
        callable_in=_duration(report.seconds_left or None),
        figures=_figures(report.figures),
    )


def _figures(figures: Figures) -> router_pb2.CallFigures:
    return router_pb2.CallFigures(
        requests=figures.requests,
        recent_requests=figures.recent,
        error_rate=figures.error_rate,
        first_token_p50=_duration(figures.first_token_p50_seconds),
        first_token_p95=_duration(figures.first_token_p95_seconds),
        tokens_per_second=figures.tokens_per_second or 0,
    )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(int(seconds * 1_000_000))
    return duration


def _routes(status: LoadStatus) -> router_pb2.RoutesState:
    return router_pb2.RoutesState(
        load_time=_timestamp(status.loaded_at),
        refuse_time=_timestamp(status.refused_at) if status.refused_at else None,
        mistakes=status.mistakes,
    )


def _timestamp(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(int(seconds * 1_000_000))
    return time

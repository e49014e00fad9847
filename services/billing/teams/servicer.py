"""TeamService: teams of a tenant."""

from __future__ import annotations

from llmmesh.tenant.v1 import teams_pb2
from llmmesh.tenant.v1.teams_pb2_grpc import TeamServiceServicer
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import visible_tenant
from services.billing.database.teams import TeamStore
from services.billing.fields import check_id, check_text
from services.billing.messages import timestamp
from services.billing.once import Once
from services.billing.teams.team import Team, team_unknown
from services.billing.tenants.rate_limits import models_of
from services.billing.versions import version_of


class TeamServicer(TeamServiceServicer):
    """Decodes, asks the store, encodes."""

    def __init__(self, teams: TeamStore) -> None:
        self._teams = teams

    async def CreateTeam(self, request: teams_pb2.CreateTeamRequest, context: Context) -> teams_pb2.CreateTeamResponse:
        """Make a team."""
        team = await self._teams.create(
            visible_tenant(request.tenant_id),
            check_id("team_id", request.team_id),
            check_text("display_name", request.display_name, required=False) or request.team_id,
            models_of(request.policy.allowed_models),
            Once.of(request, request.request_id),
        )
        return teams_pb2.CreateTeamResponse(team=_message(team))

    async def GetTeam(self, request: teams_pb2.GetTeamRequest, context: Context) -> teams_pb2.GetTeamResponse:
        """One team."""
        tenant_id, team_id = visible_tenant(request.tenant_id), check_id("team_id", request.team_id)
        team = await self._teams.get(tenant_id, team_id)
        if team is None:
            raise team_unknown(tenant_id, team_id)
        return teams_pb2.GetTeamResponse(team=_message(team))

    async def ListTeams(self, request: teams_pb2.ListTeamsRequest, context: Context) -> teams_pb2.ListTeamsResponse:
        """A page of teams."""
        tenant_id = visible_tenant(request.tenant_id)
        text = check_text("text", request.text, required=False)
        size, listing = pagination.page_size(request.page_size), f"teams/{tenant_id}/{text}"
        after = pagination.position(request.page_token, listing, str)
        found = await self._teams.page(tenant_id, text, most=size + 1, after=str(after.id) if after else "")
        rows, last = pagination.split(found, size)
        return teams_pb2.ListTeamsResponse(
            teams=[_message(team) for team in rows],
            next_page_token=pagination.token(listing, last.create_time, last.id) if last else "",
        )

    async def UpdateTeam(self, request: teams_pb2.UpdateTeamRequest, context: Context) -> teams_pb2.UpdateTeamResponse:
        """Change a team."""
        named = request.HasField("display_name")
        team = await self._teams.update(
            visible_tenant(request.tenant_id),
            check_id("team_id", request.team_id),
            display_name=check_text("display_name", request.display_name) if named else None,
            allowed_models=models_of(request.policy.allowed_models) if request.HasField("policy") else None,
            version=version_of(request.etag),
            once=Once.of(request, request.request_id),
        )
        return teams_pb2.UpdateTeamResponse(team=_message(team))

    async def DeleteTeam(self, request: teams_pb2.DeleteTeamRequest, context: Context) -> teams_pb2.DeleteTeamResponse:
        """Delete a team."""
        await self._teams.delete(
            visible_tenant(request.tenant_id),
            check_id("team_id", request.team_id),
            version=version_of(request.etag),
            force=request.force,
        )
        return teams_pb2.DeleteTeamResponse()


def _message(team: Team) -> teams_pb2.Team:
    return teams_pb2.Team(
        id=team.id,
        tenant_id=team.tenant_id,
        display_name=team.display_name,
        create_time=timestamp(team.create_time),
        etag=str(team.version),
        policy=teams_pb2.TeamPolicy(allowed_models=team.allowed_models) if team.allowed_models else None,
    )

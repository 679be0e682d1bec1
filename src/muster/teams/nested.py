"""A team as one step of another: a run of its own in the journal, on the same budgets."""

from __future__ import annotations

from dataclasses import replace

from muster.teams.budget import TokenBudget
from muster.teams.context import Earlier, RunContext, Unit
from muster.teams.definition import Role, Team
from muster.teams.json_output import extract_json
from muster.teams.records import begin_run, end_run
from muster.teams.state import SUCCEEDED, StepState
from muster.teams.unit import Answer, StepFailed

__all__ = ("first_input", "run_nested")


async def run_nested(
    context: RunContext, role: Role, state: StepState, unit: Unit, prompt: str
) -> Answer:
    """Run the role's team on `prompt`.

    Raises:
        StepFailed: its run failed.
    """
    from muster.teams.engine import run_team

    team = role.team
    assert team is not None
    inputs = {first_input(team): prompt}
    run = begin_run(context.journal, team, inputs, parent=context.run_id)
    budgets = context.token_budgets
    if team.max_tokens is not None:
        budgets = (*budgets, TokenBudget(team.max_tokens, f'team "{team.name}"'))
    inner = replace(
        context,
        run_id=run.id,
        folder=context.folder / unit[0],
        inputs=inputs,
        token_budgets=budgets,
        earlier=Earlier(),
        chain=(*context.chain, role.name),
    )
    outcome = await run_team(team, inputs, inner)
    end_run(context.journal, run.id, outcome)
    state.account.spend(outcome.token_usage, outcome.cost_usd)
    state.agent = team.name
    if outcome.status != SUCCEEDED:
        raise StepFailed(f'team "{team.name}" failed: {outcome.error}', "team_failed")
    return Answer(outcome.output, extract_json(outcome.output))


def first_input(team: Team) -> str:
    """Where the prompt goes: the declared input that is required, else the first, else `prompt`."""
    required = [field.name for field in team.inputs if field.required]
    declared = [field.name for field in team.inputs]
    return next(iter([*required, *declared, *team.defaults, "prompt"]))

"""One task's folder: its databases as changes of the shared ones, its words, and its ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from textwrap import indent

from appworld.apps.api_lib import (  # type: ignore[import-not-found]
    set_local_date_and_time,
    unset_local_date_and_time,
)
from appworld.apps.model_lib import CachedDBHandler  # type: ignore[import-not-found]
from appworld.collections.models import ModelCollection  # type: ignore[import-not-found]
from appworld.common.constants import CANARY_STRING, DB_VERSION  # type: ignore[import-not-found]
from appworld.common.datetime import DateTime  # type: ignore[import-not-found]

from .base import ACCOUNT_APPS, APPS
from .checks import EVALUATION, private_data, test_data
from .files import write_code, write_json
from .scenario import Place, Problem, Scenario, join
from .words import Person, password

NOW = DateTime(2023, 5, 18, 12, 0, 0)


@dataclass(frozen=True)
class Plan:
    """What a task is made from; the same plan always makes the same task."""

    id: str
    scenario: Scenario
    wording: str
    people: Sequence[Person]
    things: Sequence[str]
    seed: str


def write_task(data: Path, plan: Plan, attempt: int = 0) -> str:
    """Write a task's folder anew and return who asks for what."""
    chance = Random(f"{plan.seed}/{attempt}")
    me = chance.choice(list(plan.people))
    clock = set_local_date_and_time(NOW)
    models = ModelCollection.load(
        to_db_home_path=f":memory:task_input-{plan.id}",
        from_db_home_path=str(data / "base_dbs"),
        load_apps=list(APPS),
    )
    supervisor = models.supervisor.Supervisor(**vars(me))
    supervisor.save()
    for app in ACCOUNT_APPS:
        models.supervisor.AccountPassword(
            supervisor_id=supervisor.id, account_name=app, password=password(me, app)
        ).save()
    others = [person for person in plan.people if person != me]
    problem = plan.scenario.pose(Place(models, me, others, plan.things, chance))
    instruction = plan.wording.format(**problem.values)
    models.supervisor.Task(supervisor_id=supervisor.id, instruction=instruction).save()
    folder = data / "tasks" / plan.id
    models.save(str(folder / "dbs"), format="changes", app_names=list(APPS), delete_if_exists=True)
    unset_local_date_and_time(clock)
    CachedDBHandler.reset()
    _write_specs(folder, me, instruction)
    _write_truth(folder / "ground_truth", plan.scenario, problem)
    return f"{me.name}: {instruction}"


def _write_specs(folder: Path, me: Person, instruction: str) -> None:
    specs = {
        "instruction": instruction,
        "supervisor": {key: getattr(me, key) for key in ("first_name", "last_name", "email", "phone_number")},
        "datetime": NOW.isoformat(),
        "db_version": DB_VERSION,
        "canary_string": CANARY_STRING,
    }
    write_json(folder / "specs.json", specs)


def _write_truth(folder: Path, scenario: Scenario, problem: Problem) -> None:
    turns = problem.solution()
    lines = join(*turns).splitlines()
    calls = sum(line.count("apis.") for line in lines)
    metadata = {
        "mode": "full",
        "difficulty": scenario.difficulty,
        "num_apps": len({*scenario.apps, "supervisor"}),
        "num_apis": calls,
        "num_api_calls": calls,
        "num_solution_code_lines": len(lines),
    }
    write_json(folder / "metadata.json", metadata)
    write_json(folder / "answer.json", problem.answer)
    write_json(folder / "public_data.json", dict(problem.values))
    write_json(folder / "private_data.json", private_data(problem))
    write_json(folder / "test_data.json", test_data(problem))
    write_json(folder / "required_apps.json", list(scenario.apps))
    write_json(folder / "api_calls.json", [])
    # Of our own: what `demonstrate` shows, turn by turn, and programs that must fail.
    write_json(folder / "turns.json", turns)
    write_json(folder / "near_misses.json", problem.near_misses())
    write_code(folder / "evaluation.py", EVALUATION)
    body = "def solution(apis, requester):\n" + indent(join(*turns), "    ") + "\n"
    write_code(folder / "solution.py", body)
    write_code(folder / "compiled_solution.py", body)

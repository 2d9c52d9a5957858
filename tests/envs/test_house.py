"""The env house: its rules, splits, states and demonstrations."""

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import agentrl_tiny
from agentrl.errors import UsageError
from agentrl.types import Action, Observation, Outcome, Task
from agentrl_house import House
from agentrl_house.building import FURNITURE, HALL, THINGS, split_of
from agentrl_house.expert import search
from agentrl_house.world import VERBS, understand

# hall -- kitchen -- attic, with a cup in the fridge, a pen in the oven and a key in the attic's box.
ROOMS = [
    {"name": "hall", "exits": ["kitchen"], "containers": []},
    {"name": "kitchen", "exits": ["hall", "attic"], "containers": [["fridge", "cup"], ["oven", "pen"]]},
    {"name": "attic", "exits": ["kitchen"], "containers": [["box", "key"], ["chest", None]]},
]
HOUSE = Task("house", data={"rooms": ROOMS, "goal": ["cup", "key"]})
START = "In hall. Exits dark kitchen. Goal cup, key."
FETCH_CUP = ["go kitchen", "open fridge", "take cup"]
FETCH_KEY = ["go attic", "open box", "take key", "go kitchen", "go hall"]


def env(**options: Any) -> House:
    return House(House.Config(**options))


def play(actions: Sequence[str], task: Task = HOUSE, **options: Any) -> tuple[list[Observation], Outcome]:
    async def episode() -> tuple[list[Observation], Outcome]:
        house = env(**options)
        seen = [await house.reset(task, 0)]
        for text in actions:
            seen.append(await house.step(Action(text)))
        return seen, await house.judge()

    return asyncio.run(episode())


def last(actions: Sequence[str], **options: Any) -> Observation:
    return play(actions, **options)[0][-1]


# The rules of the house


def test_an_episode_shows_the_room_what_is_closed_what_lies_there_exits_hands_and_goal() -> None:
    seen, outcome = play([*FETCH_CUP, *FETCH_KEY, "put cup", "put key"])
    assert [each.text for each in seen] == [
        START,
        "In kitchen. Closed fridge, oven. Exits hall, dark attic. Goal cup, key.",
        "In kitchen. Closed oven. There is cup. Exits hall, dark attic. Goal cup, key.",
        "In kitchen. Closed oven. Exits hall, dark attic. You have cup. Goal cup, key.",
        "In attic. Closed box, chest. Exits kitchen. You have cup. Goal cup, key.",
        "In attic. Closed chest. There is key. Exits kitchen. You have cup. Goal cup, key.",
        "In attic. Closed chest. Exits kitchen. You have cup, key. Goal cup, key.",
        "In kitchen. Closed oven. Exits hall, attic. You have cup, key. Goal cup, key.",
        "In hall. Exits kitchen. You have cup, key. Goal cup, key.",
        "In hall. There is cup. Exits kitchen. You have key. Goal key.",
        "Done.",
    ]
    assert [each.done for each in seen] == [False] * 10 + [True]
    assert outcome.success
    assert (outcome.passed, outcome.failed) == (("cup", "key"), ())
    assert outcome.metrics == {"actions": 10, "revisits": 2, "invalid_actions": 0, "delivered": 1}


def test_the_wrong_order_is_no_success_until_it_is_put_right() -> None:
    wrong = [*FETCH_CUP, *FETCH_KEY, "put key", "put cup"]
    seen, outcome = play(wrong)
    assert seen[-1].text == "In hall. There is key, cup. Exits kitchen. Goal cup, key."
    assert not seen[-1].done
    assert (outcome.success, outcome.passed, outcome.failed) == (False, (), ("cup", "key"))
    seen, outcome = play([*wrong, "take key", "put key"])
    assert outcome.success
    assert seen[-1].done


def test_half_of_it_is_no_success() -> None:
    _, outcome = play([*FETCH_CUP, "go hall", "put cup"])
    assert (outcome.success, outcome.passed, outcome.failed) == (False, ("cup",), ("key",))
    assert outcome.metrics["delivered"] == 0.5


def test_what_is_put_down_elsewhere_stays_there() -> None:
    assert last([*FETCH_CUP, "go attic", "put cup"]).text.startswith(
        "In attic. Closed box, chest. There is cup."
    )


@pytest.mark.parametrize(
    "impossible",
    ["go attic", "go hall", "go garden", "open fridge", "open cup", "take cup", "take box", "put key"],
)
def test_what_cannot_be_done_here_changes_nothing_and_says_so(impossible: str) -> None:
    seen, outcome = play([impossible, "go kitchen"])
    assert seen[1].text == "You can not do that here."
    assert seen[2] == last(["go kitchen"])
    assert outcome.metrics["invalid_actions"] == 1


@pytest.mark.parametrize(
    "nonsense", ["", "go", "dance kitchen", "go kitchen now", "kitchen", "go kitchen\nfoo bar"]
)
def test_nonsense_is_told_what_can_be_done(nonsense: str) -> None:
    assert last([nonsense]).text == "Use go, open, take or put."


def test_actions_in_a_row_that_change_nothing_end_the_episode() -> None:
    seen, outcome = play(["hm", "go kitchen", "take pen", "hm"])
    assert [each.done for each in seen] == [False, False, False, False, True]
    assert not outcome.success
    assert not last(["hm", "hm"], max_invalid=3).done


@pytest.mark.parametrize(
    "text", ["go kitchen", " go kitchen", "Go to the kitchen.", "I see.\n\n**go** `kitchen`\n", "GO KITCHEN"]
)
def test_an_action_may_be_worded_as_a_sentence(text: str) -> None:
    assert understand(text) == ("go", "kitchen")


# States


def test_states_recur_whatever_way_led_to_them() -> None:
    around = last(["go kitchen", "go hall", "go kitchen", "open oven", "open fridge"])
    straight = last(["go kitchen", "open fridge", "open oven"])
    assert around == straight
    taken = ["take cup", "take pen"]
    carried = [last(["go kitchen", "open fridge", "open oven", *order]) for order in (taken, taken[::-1])]
    assert carried[0] == carried[1]


def test_the_order_of_things_makes_a_state_only_where_it_counts() -> None:
    both = ["go kitchen", "open fridge", "open oven", "take cup", "take pen"]
    assert last([*both, "put cup", "put pen"]) == last([*both, "put pen", "put cup"])
    assert last([*both, "go hall", "put cup", "put pen"]) == last([*both, "go hall", "put pen", "put cup"])
    everything = [*FETCH_CUP, *FETCH_KEY]
    wrong = [*everything, "put key", "put cup", "go kitchen"]
    right = [*everything, "put cup", "go kitchen", "go hall", "take cup", "put cup", "go kitchen"]
    assert last(wrong).state_key != last(right).state_key


def test_each_step_of_the_expert_is_another_state_and_the_step_count_is_none() -> None:
    seen, _ = play([*FETCH_CUP, *FETCH_KEY, "put cup", "put key"])
    assert len({each.state_key for each in seen}) == len(seen)
    assert last([]).state_key != last(["go kitchen", "go hall"]).state_key  # the kitchen is known now
    assert last(["go kitchen"]).state_key == last(["go kitchen", "go hall", "go kitchen"]).state_key


def test_an_action_that_changed_nothing_is_part_of_the_state_while_it_may_end_the_episode() -> None:
    seen, _ = play(["hm", "go kitchen"])
    assert seen[0].state_key != seen[1].state_key
    assert seen[2].state_key == last(["go kitchen"]).state_key


def test_equal_states_look_the_same_and_lead_to_the_same() -> None:
    tasks = env().tasks("train")[:20]
    for task in tasks:
        after: dict[tuple[str | None, str], Observation] = {}
        script = [text.strip() for text in search(task.data)]
        wander = [text for one, other in pairwise(script) for text in (one, one, other)]
        for actions in (script, wander, script[::-1], [*script[:4], *script[:6], *script]):
            seen, _ = play(actions, task)
            for before, action, observation in zip(seen, actions, seen[1:], strict=False):
                if before.done:
                    break
                assert after.setdefault((before.state_key, action), observation) == observation


# Tasks


def test_a_house_is_a_tree_with_its_things_in_its_containers() -> None:
    for task in env(rooms=6, objects=[2, 3], decoys=2).tasks("train")[:100]:
        rooms = {room["name"]: room for room in task.data["rooms"]}
        assert len(rooms) == 6
        assert set(rooms) <= {HALL, *FURNITURE}
        for name, room in rooms.items():
            assert all(name in rooms[exit_]["exits"] for exit_ in room["exits"])
        assert sum(len(room["exits"]) for room in rooms.values()) == 2 * 5
        hidden = [thing for room in rooms.values() for _, thing in room["containers"] if thing]
        assert len(set(hidden)) == len(hidden) == len(task.data["goal"]) + 2
        assert set(task.data["goal"]) <= set(hidden)
        assert task.difficulty == len(task.data["goal"]) in (2, 3)


def test_no_house_is_in_two_splits_even_where_there_are_few() -> None:
    small = env(rooms=2, containers=[1], objects=[1], decoys=0)
    splits = [
        {json.dumps(task.data) for task in small.tasks(split)[:2000]} for split in ("train", "dev", "test")
    ]
    assert sum(map(len, splits)) == len(set.union(*splits))
    assert all(splits)
    assert split_of({"rooms": ROOMS, "goal": ["cup"]}) in ("train", "dev", "test")


def test_tasks_are_the_same_in_another_env_and_differ_by_seed() -> None:
    again = [list(env().tasks("dev")[:20]) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != list(env(seed=1).tasks("dev")[:20])


def test_the_splits_are_lazy_sequences() -> None:
    tasks = env().tasks("train")
    assert len(tasks) == 1_000_000
    assert tasks[-1].id == "train-999999"
    assert [task.id for task in tasks[10:40:10]] == ["train-10", "train-20", "train-30"]
    with pytest.raises(IndexError):
        tasks[1_000_000]


def test_a_split_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no split 'valid': there is train, dev, test"):
        env().tasks("valid")


@pytest.mark.parametrize(
    "options",
    [
        {"rooms": 1}, {"rooms": 99}, {"containers": []}, {"containers": [5]}, {"objects": [0]},
        {"objects": []}, {"rooms": 2, "containers": [1], "objects": [2]}, {"decoys": -1},
        {"max_invalid": 0}, {"room": 3},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        env(**options)


# Demonstrations


def test_demonstrations_succeed_within_the_suggested_turns() -> None:
    lengths = []
    for task in env().tasks("train")[:200]:
        script = env().demonstrate(task)
        assert play(script, task)[1].success
        lengths.append(len(script))
    assert max(lengths) <= House.suggests["simulator.max_turns"]
    assert 10 <= sum(lengths) / len(lengths) <= 16


def test_the_expert_knows_no_more_than_it_has_seen() -> None:
    moved = [{**room, "containers": [list(each) for each in room["containers"]]} for room in ROOMS]
    moved[2]["containers"] = [["box", None], ["chest", "key"]]
    one, other = (list(search({"rooms": rooms, "goal": ["cup", "key"]})) for rooms in (ROOMS, moved))
    first = one.index(" take key")
    assert one[:first] == other[:first]
    assert other[first] == " open chest"


def test_the_built_in_model_has_a_token_for_every_word() -> None:
    # By file, because loading the tokenizer takes seconds.
    text = (Path(agentrl_tiny.__file__).parent / "words.txt").read_text()
    furniture = {name for names in FURNITURE.values() for name in names}
    said = {"Closed", "There", "is", "Exits", "dark", "You", "have", "Goal", "can", "not", "do", "that"}
    assert {HALL, *FURNITURE, *furniture, *THINGS, *VERBS, *said} <= set(text.split())

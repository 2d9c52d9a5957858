"""The env deepsearch on its built-in encyclopedia: protocol, limits, splits, demonstrations."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from agentrl.errors import UsageError
from agentrl.types import Action, Observation, Outcome, Task
from agentrl_deepsearch import DeepSearch
from agentrl_deepsearch.names import FIRST, LAST, people
from agentrl_deepsearch.retrieval import world_retriever


def env(**options: Any) -> DeepSearch:
    return DeepSearch(DeepSearch.Config(**options))


def play(world: DeepSearch, task: Task, actions: Sequence[str]) -> tuple[list[Observation], Outcome]:
    async def episode() -> tuple[list[Observation], Outcome]:
        seen = [await world.reset(task, 0)]
        for text in actions:
            seen.append(await world.step(Action(text)))
        return seen, await world.judge()

    return asyncio.run(episode())


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_the_demonstration_of_every_task_succeeds_in_one_search_a_hop(hops: int) -> None:
    world = env(hops=[hops])
    for task in world.tasks("train")[:50]:
        script = world.demonstrate(task)
        assert script is not None
        seen, outcome = play(world, task, script)
        assert outcome.success
        assert outcome.metrics == {"searches": hops, "invalid_actions": 0, "retrieved_gold": 1}
        assert [each.done for each in seen] == [False] * (hops + 1) + [True]


def test_a_question_names_the_relations_from_last_to_first() -> None:
    task = env(hops=[2]).tasks("train")[0]
    first, second = task.data["metadata"]["decomposition"]
    start, relation = first["question"].rsplit(" ", 1)
    assert second["question"].startswith("#1 ")
    wanted = f"Who is the {second['question'].removeprefix('#1 ')} of the {relation} of {start}?"
    assert task.data["question"] == wanted
    assert task.difficulty == 2


def test_no_person_is_in_two_splits_but_every_name_is_in_all() -> None:
    splits = [set(people(split)) for split in ("train", "dev", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(FIRST) * len(LAST)
    for split in splits:
        assert {name for person in split for name in person.split()} == {*FIRST, *LAST}


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
    assert json.loads(json.dumps(tasks[7].data)) == tasks[7].data


def test_a_search_shows_passages_in_the_convention_and_the_right_one_first() -> None:
    world, task = env(), env().tasks("train")[0]
    person = task.data["metadata"]["supporting_titles"][0]
    seen, _ = play(world, task, [f"<think> hm</think><search> {person}</search>"])
    assert seen[0].text == f"Question: {task.data['question']}"
    assert seen[1].text.startswith(f"<information>Doc 1(Title: {person}) {person} ")
    assert "\nDoc 2(Title: " in seen[1].text
    assert seen[1].text.endswith(".</information>")


def test_the_last_search_is_announced_and_one_more_ends_the_episode_without_an_answer() -> None:
    world, task = env(max_searches=2), env().tasks("train")[0]
    seen, outcome = play(world, task, ["<search> Ada</search>"] * 3)
    assert "No searches left" not in seen[1].text
    assert seen[2].text.endswith("</information>\nNo searches left. Answer now.")
    assert seen[3].done
    assert outcome.answer is None
    assert not outcome.success


def test_an_answer_after_the_last_search_still_counts() -> None:
    world, task = env(max_searches=1), env().tasks("train")[0]
    answer = task.data["golden_answers"][0].lower() + "."
    seen, outcome = play(world, task, ["<search> Ada</search>", f"<answer>{answer}</answer>"])
    assert seen[-1].done
    assert outcome.success
    assert outcome.answer == answer


def test_nonsense_is_explained_and_counted_and_leaves_the_state_as_it_was() -> None:
    world, task = env(max_invalid=9), env().tasks("train")[0]
    seen, outcome = play(world, task, ["hello", "<search> </search>", "<answer"])
    assert all("<search>" in each.text and "<answer>" in each.text and not each.done for each in seen[1:])
    assert len({each.state_key for each in seen}) == 1
    assert outcome.metrics["invalid_actions"] == 3


def test_two_actions_in_a_row_that_make_no_sense_end_the_episode() -> None:
    world, task = env(), env().tasks("train")[0]
    seen, outcome = play(world, task, ["hello", "<search> Ada</search>", "hm", "hm"])
    assert [each.done for each in seen] == [False, False, False, False, True]
    assert not outcome.success


def test_a_search_that_finds_nothing_says_so() -> None:
    world, task = env(), env().tasks("train")[0]
    seen, _ = play(world, task, ["<search> xyzzy ?!</search>"])
    assert seen[1].text == "<information>No documents match.</information>"


def test_equal_states_have_equal_keys_and_different_ones_do_not() -> None:
    world, task = env(), env().tasks("train")[0]
    one, other = task.data["metadata"]["supporting_titles"][0], task.data["golden_answers"][0]
    first, _ = play(world, task, [f"<search> {one}</search>"])
    worded, _ = play(world, task, [f"<think> well</think><search>{one}!</search>"])
    elsewhere, _ = play(world, task, [f"<search> {other}</search>"])
    assert first[1].state_key == worded[1].state_key
    assert len({first[0].state_key, first[1].state_key, elsewhere[1].state_key}) == 3
    assert first[0].state_key != play(world, env().tasks("train")[1], [])[0][0].state_key


def test_long_results_are_cut_and_say_by_how_much() -> None:
    world, task = env(observation_characters=100), env().tasks("train")[0]
    person = task.data["metadata"]["supporting_titles"][0]
    seen, _ = play(world, task, [f"<search> {person}</search>"])
    whole, _ = play(env(), task, [f"<search> {person}</search>"])
    extra = len(whole[1].text) - len("<information></information>") - 100
    assert seen[1].text.endswith(f" ... ({extra} characters cut)</information>")
    assert len(seen[1].text) < 180


def test_a_split_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no split 'valid': there is train, dev, test"):
        env().tasks("valid")


@pytest.mark.parametrize(
    "options", [{"hops": [5]}, {"hops": []}, {"people": 3}, {"retriever": "file:///x"}, {"hop": [1]}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        env(**options)


def test_a_demonstration_that_would_need_more_searches_than_allowed_is_not_given() -> None:
    world = env(hops=[3], max_searches=2)
    assert world.demonstrate(world.tasks("train")[0]) is None


def test_all_envs_of_a_process_share_the_index_of_a_world() -> None:
    one, other = env().tasks("train")[:2]
    assert world_retriever(*one.data["world"]) is world_retriever(*one.data["world"])
    assert world_retriever(*one.data["world"]) is not world_retriever(*other.data["world"])

"""Dr.GRPO divides by neither standard deviation nor length."""

import pytest
from pydantic import ValidationError

from agentrl import Aggregation
from agentrl.aggregation import token_weights
from agentrl.config import resolve
from agentrl.errors import UsageError
from agentrl.hooks import Hooks
from agentrl_dr_grpo import DrGRPO


def test_advantages_are_the_golden_ones():
    rewards = [1.0, 0, 0, 1, 0, 0, 0, 0]
    assert DrGRPO().advantages(rewards) == [0.75 if reward else -0.25 for reward in rewards]


def test_the_loss_is_divided_by_a_constant():
    algorithm = DrGRPO(DrGRPO.Config(length=4))
    assert algorithm.aggregation == Aggregation("constant", 4)
    weights = token_weights([4, 2], algorithm.aggregation)
    assert weights[0] * 4 * 1 + weights[1] * 2 * 3 == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["simulator.max_turns=3", "simulator.max_new_tokens=50"], 150),
        (["simulator.max_turns=3", "simulator.max_new_tokens=50", "simulator.max_tokens=70"], 70),
    ],
)
def test_the_constant_is_what_the_run_allows_a_trajectory(settings, expected, tmp_path):
    algorithm, hooks = DrGRPO(), Hooks(installed=False)
    hooks.invite(algorithm, "dr_grpo")
    hooks.run_started(resolve({"env": "deepsearch", "algorithm": "dr_grpo"}, sets=settings), tmp_path)
    assert algorithm.aggregation == Aggregation("constant", expected)


def test_without_a_run_the_constant_must_be_set():
    with pytest.raises(UsageError, match="needs a length"):
        token_weights([3], DrGRPO().aggregation)


@pytest.mark.parametrize("option", ["normalisation", "epsilon", "aggregation"])
def test_options_without_effect_are_refused(option):
    with pytest.raises(ValidationError, match="Extra inputs"):
        DrGRPO.Config(**{option: getattr(DrGRPO.Config(), option)})

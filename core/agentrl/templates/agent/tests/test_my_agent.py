"""The agent keeps the rules of agents, and acts as it says."""

import pytest
from agentrl.testing import check_agent

from agentrl_my_agent import MyAgent


@pytest.mark.parametrize("turns", [1, 2, 8])
def test_it_keeps_the_rules_of_agents(turns: int) -> None:
    """Let the model say sense and nonsense to it, with a context that begins anew now and then."""
    config = MyAgent.Config(turns=turns)
    said = ["I am thirsty. <action>drink</action>", "<action></action>"]
    check_agent(lambda: MyAgent(config), completions=said)


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("Left or right? <action> left </action>", "left"),
        ("<action>left</action> or <action>right</action>", "right"),
        ("left", "left"),
    ],
)
def test_the_action_is_taken_out_of_its_tags(said: str, action: str) -> None:
    """Read what a model may say."""
    assert MyAgent.action_in(said) == action

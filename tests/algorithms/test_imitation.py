"""Imitation is maximum likelihood of what was said."""

import math

import pytest
import torch

from agentrl import Batch, Group, Segment, Span, Task, Tokens, Trajectory
from agentrl_imitation import Imitation


def test_every_token_gets_the_same_credit():
    spans = [Span(1, [math.nan] * 2, 0), Span(5, [math.nan] * 3, 1)]
    shown = Trajectory(Task("t"), segments=[Segment([0] * 9, spans)])
    assert Imitation().credit(Batch([Group(shown.task, [shown])]))[0][0].advantages == [1.0] * 5


def test_the_loss_is_the_negative_log_likelihood():
    logprobs = torch.tensor([-0.5, -3.0], requires_grad=True)
    nothing, places = torch.full((2,), math.nan), torch.zeros(2, dtype=torch.long)
    tokens = Tokens(logprobs, nothing, nothing, torch.ones(2), places, places, 1, nothing)
    loss = Imitation().loss(tokens)
    loss.mean().backward()
    assert loss.tolist() == [0.5, 3.0]
    assert logprobs.grad.tolist() == [-0.5, -0.5]


def test_demonstrations_are_needed_for_it():
    assert Imitation().needs == {"demonstrations"}
    with pytest.raises(ValueError, match="extra"):
        Imitation.Config(learning_rate=1)

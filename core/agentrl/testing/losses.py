"""The rules of algorithms' losses. Needs torch."""

import copy
from collections.abc import Sequence
from dataclasses import fields
from random import Random
from typing import Any

import torch
from torch import Tensor

from agentrl.interfaces import Algorithm, Tokens
from agentrl.testing.algorithms import OTHERS, TOLERANCE, AlgorithmUnderTest
from agentrl.testing.rules import RuleBroken, no_exception
from agentrl.testing.samples import make_groups

# How many sampled tokens each trajectory of a micro-batch has.
LENGTHS = (3, 1, 4)
# How much likelier or less likely, in nats, a token can have become since another policy sampled it.
FAR = 20.0
# Of trajectories whose tokens all became likelier, or all less likely: float32 does not hold their product.
FAR_LENGTHS = (8, 1, 8)
FAR_LIKELIER = (True, True, False)


def make_tokens(
    algorithm: Algorithm,
    lengths: Sequence[int] = LENGTHS,
    dtype: torch.dtype = torch.float64,
    seed: int = 3,
) -> Tokens:
    """Return a micro-batch of trajectories with these numbers of tokens, with what `algorithm` needs.

    The ratios of old and new probabilities lie within 5%: inside of every sensible clip.
    """
    random = Random(seed)

    def draw(around: Sequence[float] | None, spread: float) -> Tensor:
        centre = around or [-1.5] * sum(lengths)
        return torch.tensor([value + random.uniform(-spread, spread) for value in centre], dtype=dtype)

    old = draw(None, 1.0)
    numbers: list[float] = old.tolist()
    needs = algorithm.needs
    values = draw([0.3] * sum(lengths), 0.2)
    return Tokens(
        logprobs=draw(numbers, 0.05).requires_grad_(),
        old_logprobs=old,
        rollout_logprobs=draw(numbers, 0.001),
        advantages=draw([0.2] * sum(lengths), 1.0),
        trajectory=torch.tensor([index for index, length in enumerate(lengths) for _ in range(length)]),
        turn=torch.tensor([place // 2 for length in lengths for place in range(length)]),
        trajectories=len(lengths),
        entropy=draw(None, 1.0).abs(),
        reference_logprobs=draw(numbers, 0.1) if "reference" in needs else None,
        returns=draw([0.5] * sum(lengths), 0.5) if "values" in needs else None,
        values=draw(values.tolist(), 0.05).requires_grad_() if "values" in needs else None,
        old_values=values if "values" in needs else None,
    )


def has_a_loss_per_token(subject: AlgorithmUnderTest) -> None:
    """The loss is finite, (N,), and so is its gradient; the tensors it was made of are left alone."""
    for dtype in (torch.float64, torch.float32):
        tokens = make_tokens(subject.new(), dtype=dtype)
        before = {field.name: _snapshot(getattr(tokens, field.name)) for field in fields(tokens)}
        loss = loss_of(subject, tokens, f"{len(tokens.logprobs)} tokens")
        _check_gradient(loss, tokens, f"{len(tokens.logprobs)} tokens")
        for name, value in before.items():
            if name != "logged" and value is not None and not _equal(value, getattr(tokens, name)):
                found = f"loss changed tokens.{name}"
                raise RuleBroken("leaves tokens alone", found, "use no in-place operation")


def bears_tokens_that_are_far_off(subject: AlgorithmUnderTest) -> None:
    """Loss and gradient are finite, in float32, where tokens became e^20 times likelier or less likely."""
    tokens = make_tokens(subject.new(), FAR_LENGTHS, torch.float32)
    likelier_N = torch.tensor(FAR_LIKELIER)[tokens.trajectory]
    for name in ("old_logprobs", "rollout_logprobs", "reference_logprobs"):
        if (others_N := getattr(tokens, name)) is not None:
            setattr(tokens, name, others_N.where(~likelier_N, others_N - FAR))
    logprobs_N = tokens.logprobs.detach()
    tokens.logprobs = logprobs_N.where(likelier_N, logprobs_N - FAR).requires_grad_()
    what = f"tokens that became e^{FAR:g} times likelier, or less likely,"
    _check_gradient(loss_of(subject, tokens, what), tokens, what)


def _check_gradient(loss: Tensor, tokens: Tokens, what: str) -> None:
    """Hold the loss to a finite gradient."""
    if not loss.requires_grad:
        found = "the loss does not depend on the log-probabilities"
        raise RuleBroken("can be learnt from", found, "compute it from tokens.logprobs without detaching")
    loss.sum().backward()  # type: ignore[no-untyped-call]
    gradient = tokens.logprobs.grad
    if gradient is None or not bool(torch.isfinite(gradient).all()):
        shown = None if gradient is None else gradient.tolist()
        found = f"the gradient of the loss of {what} is {shown}"
        raise RuleBroken("can be learnt from", found, "clamp what is exponentiated, and divide by no zero")


def keeps_no_state_of_tokens(subject: AlgorithmUnderTest) -> None:
    """An algorithm that has seen another batch computes the same loss as before."""
    algorithm = subject.new()
    first = loss_of(subject, make_tokens(algorithm), "three trajectories", algorithm).detach()
    subject.credit(make_groups(OTHERS), "two groups", algorithm)
    loss_of(subject, make_tokens(algorithm, seed=4), "three others", algorithm)
    again = loss_of(subject, make_tokens(algorithm), "three trajectories, once more,", algorithm).detach()
    if not torch.allclose(first, again, rtol=TOLERANCE, atol=TOLERANCE):
        raise RuleBroken(
            "keeps no state",
            "a token got a different loss after another batch",
            "compute the loss from `tokens` alone, and keep nothing of them in the instance",
        )


def has_a_loss_for_each_trajectory_alone(subject: AlgorithmUnderTest) -> None:
    """A token's loss does not depend on what other trajectories are in its micro-batch."""
    algorithm = subject.new()
    tokens = make_tokens(algorithm)
    together = loss_of(subject, tokens, "three trajectories").detach()
    parts = [_only(tokens, index) for index in range(tokens.trajectories)]
    alone = [loss_of(subject, part, "one trajectory").detach() for part in parts]
    if not torch.allclose(together, torch.cat(alone), rtol=TOLERANCE, atol=TOLERANCE):
        raise RuleBroken(
            "weighs each trajectory alone",
            "a token's loss changed with the other trajectories of its micro-batch",
            "normalise in credit, where the whole batch is known: micro-batches are cut by their size",
        )


def has_the_gradient_it_should(subject: AlgorithmUnderTest) -> None:
    """The gradient of the loss, in float64, is what finite differences say."""
    tokens = make_tokens(subject.new())
    inputs = [tensor for tensor in (tokens.logprobs, tokens.values) if tensor is not None]

    def loss(*given: Tensor) -> Tensor:
        tokens.logprobs, tokens.values = given[0], given[1] if len(given) > 1 else None
        return subject.new().loss(tokens)

    try:
        torch.autograd.gradcheck(loss, inputs)
    except RuntimeError as error:
        raise RuleBroken(
            "has the gradient it should",
            f"gradient and finite differences disagree ({str(error).splitlines()[0]})",
            "look for a detach or an in-place operation; if it is on purpose, pass gradcheck=False",
        ) from error


def _only(tokens: Tokens, index: int) -> Tokens:
    """Return the tokens of one trajectory."""
    mine = tokens.trajectory == index
    part = copy.copy(tokens)
    for field in fields(tokens):
        value = getattr(tokens, field.name)
        if field.name not in ("trajectories", "logged") and value is not None:
            setattr(part, field.name, value[mine])
    part.trajectory, part.trajectories, part.logged = part.trajectory - index, 1, {}
    return part


def _snapshot(value: Any) -> Any:
    return value.detach().clone() if hasattr(value, "detach") else copy.copy(value)


def _equal(one: Any, other: Any) -> bool:
    return bool((one == other).all()) if hasattr(one, "detach") else bool(one == other)


def _shape(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if hasattr(value, "shape") else f"a {type(value).__name__}"


def loss_of(
    subject: AlgorithmUnderTest, tokens: Tokens, what: str, algorithm: Algorithm | None = None
) -> Tensor:
    """Return the loss of tokens by a fresh algorithm, or by this one, held to shape and finiteness."""
    algorithm = subject.new() if algorithm is None else algorithm
    with no_exception(f"loss of {what}", "handle every micro-batch, and name all that you read in `needs`"):
        loss = algorithm.loss(tokens)
    count = len(tokens.logprobs)
    if not isinstance(loss, torch.Tensor) or loss.shape != (count,):
        found = f"the loss of {count} tokens is {_shape(loss)}"
        raise RuleBroken("has a loss per token", found, "return a tensor (N,): the trainer sums and averages")
    if not bool(torch.isfinite(loss).all()):
        remedy = "guard logarithms, divisions and exponentials"
        raise RuleBroken("has finite losses", f"the loss of {what} is {loss.tolist()}", remedy)
    return loss


RULES = (
    has_a_loss_per_token,
    bears_tokens_that_are_far_off,
    has_a_loss_for_each_trajectory_alone,
    keeps_no_state_of_tokens,
)

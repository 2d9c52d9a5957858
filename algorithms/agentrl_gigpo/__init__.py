"""GiGPO: steps that began in the same state are compared with one another, besides whole trajectories.

Feng et al. 2025, "Group-in-Group Policy Optimization for LLM Agent Training", arXiv:2505.10978. Trajectory i
of a group, with the reward R_i, has the advantage

    A_E(i) = (R_i - mean(R)) / F(R)

With r_t the reward of step t, the outcome's at the last one, its return is

    G_t = r_t + gamma G_{t+1}

The steps of the group, of whichever trajectory, that began in the same state are an anchor group. Among them
step t has the advantage A_S, and every token of its turn the sum:

    A_S(t) = (G_t - mean(G)) / F(G),        A = A_E(i) + weight * A_S(t)

F is 1, or the standard deviation of the sample plus 1e-6. A state that was met once gives A_S = 0.

How the defaults differ from the paper, and from the authors' code:
1. F is 1, one of the two that are published: anchor groups are small, and the standard deviation of two or
   three numbers is mostly noise. `norm="mean_std"` is the other.
2. Mean and standard deviation of R are over trajectories. The code takes them over steps, so that long
   trajectories weigh more: `statistics="step"`.
3. States are the same if the env's keys are (`keys`), else if their normalised texts are (`match`).
4. Tokens of a turn that came to no action, because there was no more room, get A_E only.
5. With `kl="reward"` the penalty of a turn's tokens is part of r_t, and R_i is the sum of all r_t.
6. The clipped loss is that of `agentrl.policy_gradient`, with its defaults.

Returns are discounted, so among trajectories that all succeed those that were quick are favoured. Equal
rewards teach nothing where returns are equal, too: where all rewards are 0, or `gamma` is 1.
"""

from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Literal

from pydantic import Field

from agentrl import Batch, Credit, Group, PolicyGradient
from agentrl.steps import exact, normalized, share_named, spread, steps
from agentrl.types import Need

__all__ = ["GiGPO"]

_EPSILON = 1e-6
# The steps of a group that began in each state, as (trajectory, turn).
Anchors = dict[str, list[tuple[int, int]]]


class GiGPO(PolicyGradient):
    """Group-in-group policy optimisation."""

    class Config(PolicyGradient.Config):
        """Options of GiGPO, besides those of the loss."""

        gamma: float = Field(default=0.95, gt=0, le=1, description="discount of rewards, a step")
        weight: float = Field(default=1.0, gt=0, description="of the advantage of a step")
        norm: Literal["mean", "mean_std"] = Field(
            default="mean",
            description="what becomes of rewards and returns: less their mean, or divided by their "
            "standard deviation, too",
        )
        statistics: Literal["trajectory", "step"] = Field(
            default="trajectory",
            description="what counts once in mean and deviation of rewards: a trajectory, or each step",
        )
        keys: Literal["prefer", "require", "ignore"] = Field(
            default="prefer",
            description="keys of states: used where there are any, required of the env, or not used",
        )
        match: Literal["exact", "normalised"] = Field(
            default="normalised",
            description="which texts are the same where there is no key: equal ones, or those that differ in "
            "case, spaces, times and machine-made identifiers only",
        )

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return "groups", "step_keys" where they are required, and what the loss needs."""
        required: list[Need] = ["step_keys"] if self.config.keys == "require" else []
        return super().needs | {"groups", *required}

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Compare each trajectory with its group, and each step with those that began in the same state."""
        anchors = [self.anchors(group) for group in batch.groups]
        self._report(batch, anchors)
        return [list(self._credit_group(batch, index, each)) for index, each in enumerate(anchors)]

    def _credit_group(self, batch: Batch, index: int, anchors: Anchors) -> Iterator[Credit]:
        trajectories = batch.groups[index].trajectories
        members = range(len(trajectories))
        of_episodes = self.episode_advantages(
            self.rewards(batch, index), [len(t.turns) for t in trajectories]
        )
        of_steps = self.step_advantages([self.returns(batch, index, i) for i in members], anchors)
        for trajectory, episode, found in zip(trajectories, of_episodes, of_steps, strict=True):
            per_turn = [episode + self.config.weight * step for step in found]
            yield Credit(spread(trajectory, per_turn, rest=episode))

    def anchors(self, group: Group) -> Anchors:
        """Return the steps of a group by the state they began in."""
        found: Anchors = defaultdict(list)
        state_text, given = (
            (exact if self.config.match == "exact" else normalized),
            self.config.keys != "ignore",
        )
        for member, trajectory in enumerate(group.trajectories):
            for turn, step in enumerate(steps(trajectory, state_text, given_keys=given)):
                found[step.state].append((member, turn))
        return found

    def returns(self, batch: Batch, group: int, member: int) -> list[float]:
        """Return the discounted return of each step of a trajectory."""
        trajectory = batch.groups[group].trajectories[member]
        if not trajectory.turns:
            return []
        rewards = [0.0] * len(trajectory.turns)
        rewards[-1] = trajectory.reward
        turn_of = [span.turn for span in trajectory.spans for _ in span.logprobs]
        for turn, penalty in zip(turn_of, self.kl_rewards(batch, group, member), strict=True):
            rewards[min(turn, len(rewards) - 1)] += penalty
        for turn in reversed(range(len(rewards) - 1)):
            rewards[turn] += self.config.gamma * rewards[turn + 1]
        return rewards

    def episode_advantages(self, rewards: list[float], turns: list[int]) -> list[float]:
        """Return the advantage of each trajectory of a group, from its reward and number of turns."""
        by_step = self.config.statistics == "step"
        weights = [max(1, each) if by_step else 1 for each in turns]
        counted = [reward for reward, weight in zip(rewards, weights, strict=True) for _ in range(weight)]
        return self._compare(rewards, counted)

    def step_advantages(self, returns: list[list[float]], anchors: Anchors) -> list[list[float]]:
        """Return the advantage of each step of each trajectory of a group among those of its anchor group."""
        advantages = [[0.0] * len(each) for each in returns]
        for places in anchors.values():
            values = [returns[member][turn] for member, turn in places]
            for (member, turn), advantage in zip(places, self._compare(values, values), strict=True):
                advantages[member][turn] = advantage
        return advantages

    def _compare(self, values: list[float], counted: list[float]) -> list[float]:
        """Return how far each value lies above the mean of those that are `counted`."""
        if min(values) == max(values):  # exactly 0, which the mean's rounding would miss
            return [0.0] * len(values)
        scaled = self.config.norm == "mean_std" and len(counted) > 1
        mean, scale = fmean(counted), stdev(counted) + _EPSILON if scaled else 1.0
        return [(value - mean) / scale for value in values]

    def _report(self, batch: Batch, anchors: list[Anchors]) -> None:
        """Log how much is compared step by step, and how many states the env named."""
        sizes = [len(places) for each in anchors for places in each.values()]
        shared = sum(size for size in sizes if size > 1)
        batch.log("anchored_steps", shared / max(1, sum(sizes)))
        batch.log("anchor_size", sum(sizes) / max(1, len(sizes)))
        batch.log("given_keys", 0.0 if self.config.keys == "ignore" else share_named(batch.groups))

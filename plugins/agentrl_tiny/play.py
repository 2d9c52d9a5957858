"""Let a model play an env by itself, to see how often it succeeds.

A plain generate loop, so that the model can be made and measured without an engine: prompts are
padded on the left, and every turn is prefilled anew.
Shapes: B episodes side by side, T tokens, V entries of the vocabulary.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agentrl.interfaces import Env
from agentrl.types import Action, Observation, Task

from .tokenizer import ASSISTANT, END, USER

STOPS = ("</search>", "</answer>", END)
TURNS, TOKENS, SIDE_BY_SIDE = 6, 32, 64


@dataclass
class Episode:
    """One episode under way."""

    env: Env
    ids: list[int]
    done: bool = False


def success_rate(
    model: Any, tokenizer: Any, env: Env, tasks: Sequence[Task], seed: int, temperature: float = 1.0
) -> float:
    """Return the share of `tasks` that the model solves, sampling at `temperature` (0: likeliest token)."""
    chance = torch.Generator().manual_seed(seed)
    solved = 0
    for first in range(0, len(tasks), SIDE_BY_SIDE):
        some = tasks[first : first + SIDE_BY_SIDE]
        solved += asyncio.run(_play(model, tokenizer, env, some, chance, temperature))
    return solved / len(tasks)


async def _play(
    model: Any, tokenizer: Any, env: Env, tasks: Sequence[Task], chance: torch.Generator, temperature: float
) -> int:
    episodes = []
    for task in tasks:
        episode = Episode(type(env)(env.config), [])
        _show(episode, tokenizer, await episode.env.reset(task, 0), "")
        episodes.append(episode)
    for _ in range(TURNS):
        playing = [episode for episode in episodes if not episode.done]
        if not playing:
            break
        said = generate(model, tokenizer, [episode.ids for episode in playing], chance, temperature)
        for episode, ids in zip(playing, said, strict=True):
            closing = "" if ids[-1] == tokenizer.eos_token_id else END
            episode.ids += ids
            observation = await episode.env.step(Action(tokenizer.decode(ids, skip_special_tokens=True)))
            _show(episode, tokenizer, observation, closing)
    return sum([(await episode.env.judge()).success for episode in episodes])


def _show(episode: Episode, tokenizer: Any, observation: Observation, closing: str) -> None:
    text = f"{closing}{USER}{observation.text}{END}{ASSISTANT}"
    episode.ids += tokenizer.encode(text, add_special_tokens=False)
    episode.done = observation.done


@torch.no_grad()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], chance: torch.Generator, temperature: float
) -> list[list[int]]:
    """Return what the model says after each prompt, up to and including a stop token."""
    stops = {tokenizer.convert_tokens_to_ids(stop) for stop in STOPS}
    ids_BT, mask_BT = _pad(prompts, tokenizer.pad_token_id)
    said: list[list[int]] = [[] for _ in prompts]
    cache, positions_BT = None, (mask_BT.cumsum(1) - 1).clamp(min=0)
    for _ in range(TOKENS):
        out = model(
            ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        cache, drawn_B = out.past_key_values, _draw(out.logits[:, -1], chance, temperature)
        for ids, drawn in zip(said, drawn_B.tolist(), strict=True):
            if not ids or ids[-1] not in stops:
                ids.append(drawn)
        if all(ids[-1] in stops for ids in said):
            break
        ids_BT = drawn_B[:, None]
        mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], 1)
        positions_BT = mask_BT.sum(1, keepdim=True) - 1
    return said


def _draw(logits_BV: Tensor, chance: torch.Generator, temperature: float) -> Tensor:
    if temperature == 0:
        return logits_BV.argmax(-1)
    return torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=chance)[:, 0]


def _pad(prompts: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    length = max(map(len, prompts))
    ids = [[pad] * (length - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)

"""Demonstrations as token ids: what an expert does in an env, written in the model's chat format.

Shapes: B dialogues of a batch, T tokens.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agentrl.expert import expert_of
from agentrl.interfaces import Env
from agentrl.types import Action, Task

from .tokenizer import ASSISTANT, END, USER


async def dialogue(env: Env, task: Task) -> list[tuple[str, str]]:
    """Return what the env shows and what the expert answers, turn by turn; nothing where there is none."""
    expert, turns = expert_of(env, task), list[tuple[str, str]]()
    observation = await env.reset(task, 0)
    while expert and not observation.done:
        turns.append((observation.text, expert(observation)))
        observation = await env.step(Action(turns[-1][1]))
    return turns


def encode(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[bool]]:
    """Return the ids of a dialogue, as the chat template writes it, and which of them the expert wrote."""
    ids: list[int] = []
    expert: list[bool] = []
    for shown, answered in turns:
        for text, learnt in ((f"{USER}{shown}{END}{ASSISTANT}", False), (f"{answered}{END}", True)):
            piece = tokenizer.encode(text, add_special_tokens=False)
            ids += piece
            expert += [learnt] * len(piece)
    return ids, expert


def batch(chance: random.Random, tokenizer: Any, envs: Sequence[Env], size: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, both (B, T), of `size` demonstrations of training tasks, padded on the right."""
    drawn = [_draw(chance, envs) for _ in range(size)]
    return padded(tokenizer, [asyncio.run(dialogue(env, task)) for env, task in drawn])


def padded(tokenizer: Any, dialogues: Sequence[Sequence[tuple[str, str]]]) -> tuple[Tensor, Tensor]:
    """Return ids and the mask of what the expert wrote, both (B, T), padded on the right."""
    return stacked([encode(tokenizer, turns) for turns in dialogues], tokenizer.pad_token_id)


def stacked(rows: Sequence[tuple[list[int], list[bool]]], pad: int) -> tuple[Tensor, Tensor]:
    """Return encoded dialogues as ids and mask, both (B, T), padded on the right."""
    length = max(len(ids) for ids, _ in rows)
    ids_BT = torch.full((len(rows), length), pad)
    mask_BT = torch.zeros((len(rows), length), dtype=torch.bool)
    for row, (ids, expert) in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        mask_BT[row, : len(ids)] = torch.tensor(expert)
    return ids_BT, mask_BT


def _draw(chance: random.Random, envs: Sequence[Env]) -> tuple[Env, Task]:
    env = chance.choice(envs)
    tasks = env.tasks("train")
    return env, tasks[chance.randrange(len(tasks))]

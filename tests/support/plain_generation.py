"""Generation by small models, as plain as can be: no cache, one sequence at a time. Engines must equal it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from agentrl.interfaces import Resources
from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine
from agentrl_torch.sampling import uniform
from small_models import make_tokenizer

torch.set_num_threads(1)

VOCAB = 300
END = 1


def make_model(kind: str, **options: Any) -> Any:
    """Return a small model whose next tokens are far from equally likely."""
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    ends = {"eos_token_id": END, "bos_token_id": None, "pad_token_id": 0}
    config, model = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    torch.manual_seed(0)
    made = model(config(**{**sizes, **heads, **ends, "tie_word_embeddings": kind == "llama", **options}))
    for parameter in made.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def save(model: Any, folder: Path) -> Path:
    """Write a model directory, and return it."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def start(path: Path, **config: Any) -> TorchEngine:
    """Start an engine; whoever calls closes it."""
    engine = TorchEngine(TorchEngine.Config(**{"min_shared_prefix": 4, **config}))
    asyncio.run(engine.start(path, Resources()))
    return engine


class Plain:
    """One sequence at a time, everything computed anew for every token."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path).eval()

    def logprobs(self, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
        """Return the log-probabilities of every next token, (tokens, vocabulary)."""
        with torch.inference_mode():
            return torch.log_softmax(self.model(torch.tensor([ids])).logits[0].float() / temperature, -1)

    def generate(self, ids: list[int], sampling: Sampling) -> list[int]:
        """Return what is sampled after these ids."""
        ids, first = list(ids), len(ids)
        while len(ids) - first < sampling.max_tokens:
            ids.append(self._draw(self.logprobs(ids)[-1].double().numpy(), sampling, len(ids)))
            if ids[-1] == END:
                break
        return ids[first:]

    def _draw(self, logprobs: Any, sampling: Sampling, position: int) -> int:
        if sampling.temperature == 0:
            return int(logprobs.argmax())
        probs = np.exp(logprobs / sampling.temperature)
        probs /= probs.sum()
        order = np.argsort(-probs, kind="stable")
        before = np.cumsum(probs[order]) - probs[order]
        probs[order[before >= sampling.top_p]] = 0
        number = uniform(np.array([sampling.seed], dtype=np.uint64), [position])[0]
        return int(np.searchsorted(np.cumsum(probs), number * probs.sum(), side="right"))

    def check(self, ids: list[int], completion: Completion) -> None:
        """See to it that the log-probabilities of a completion are those of a full forward."""
        full = self.logprobs(ids + completion.token_ids, completion.temperature)[len(ids) - 1 : -1]
        expected = full.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=1e-5)


def some_ids(seed: int, length: int) -> list[int]:
    """Return random ids, none of which ends a turn."""
    return [int(i) for i in np.random.default_rng(seed).integers(2, VOCAB, length)]


async def together(*calls: Coroutine[Any, Any, Completion]) -> list[Completion]:
    """Return what calls that are made at once return."""
    return list(await asyncio.gather(*calls))


def count_tokens(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of tokens of every forward."""
    counts: list[int] = []
    model = engine._loaded().model
    forward = model.forward

    def counting(*args: Any, **options: Any) -> Any:
        counts.append(options["input_ids"].shape[1])
        return forward(*args, **options)

    monkeypatch.setattr(model, "forward", counting)
    return counts

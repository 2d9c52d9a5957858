"""TRL's side of the race: GRPOTrainer as fast as its users can make it on a CPU.

A `rollout_func` written by hand for many turns: every prompt is read once a group, keys and values are kept
across turns in a buffer that is never copied, all trajectories decode as one batch without padding, and no
log-probability that the update would not use is computed. The update has no gradient checkpointing, no pass
for old or reference log-probabilities, no padding and no logging.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from work import Measurement, Seconds, Stopwatch, Work, peak_mb

for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRL_EXPERIMENTAL_SILENCE"):
    os.environ.setdefault(variable, "1")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.cache_utils import DynamicLayer  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402


class Buffer(DynamicLayer):
    """Keys and values of a layer, in memory reserved once; `DynamicLayer` copies all for every token."""

    def reserve(self, repeats: int, capacity: int) -> None:
        """Repeat each row, as the rows of its group, and make room for `capacity` tokens."""
        self._stored, self._length = [], self.keys.shape[2]
        for kept in (self.keys, self.values):
            stored = kept.new_empty(kept.shape[0] * repeats, kept.shape[1], capacity, kept.shape[3])
            stored[:, :, : self._length] = kept.repeat_interleave(repeats, dim=0)
            self._stored.append(stored)
        self._show()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the new tokens and return all."""
        if not hasattr(self, "_stored"):
            return super().update(key_states, value_states, *args, **kwargs)
        begin, self._length = self._length, self._length + key_states.shape[2]
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[:, :, begin : self._length] = new
        self._show()
        return self.keys, self.values

    def _show(self) -> None:
        self.keys, self.values = (stored[:, :, : self._length] for stored in self._stored)


class Peer(GRPOTrainer):
    """GRPOTrainer with a clock."""

    rollout = Seconds(wall=0.0, cpu=0.0)
    trained = 0
    loss = 0.0

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        watch = Stopwatch()
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self.rollout = watch.lap()
        self.trained = int((batch["completion_mask"] * batch["tool_mask"]).sum())
        assert bool((batch["advantages"] != 0).all())
        return batch

    def measurement(self, update: Seconds | None) -> Measurement:
        """Return what the last step took."""
        loss = None if update is None else self.loss
        return Measurement(
            rollout=self.rollout, update=update, trained=self.trained, loss=loss, peak_mb=peak_mb()
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Add up the loss of the step."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self.loss += float(loss)
        return loss


class Rollout:
    """The `rollout_func`: plays all trajectories of a step in lock-step."""

    def __init__(self, work: Work) -> None:
        """Take the shapes."""
        self._work = work
        self._played = 0

    @torch.inference_mode()
    def __call__(self, prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """Return ids, and a mask that is 1 where a token was sampled; log-probabilities would not be used."""
        work, tokenizer = self._work, trainer.processing_class
        model = trainer.accelerator.unwrap_model(trainer.model)
        prompt_ids = [tokenizer.encode(prompt) for prompt in prompts[:: work.group_size]]
        cache = DynamicCache(config=model.config)
        cache.layers = [Buffer() for _ in range(model.config.num_hidden_layers)]
        logits = self._read(model, torch.tensor(prompt_ids), cache).repeat_interleave(work.group_size, dim=0)
        for layer in cache.layers:
            layer.reserve(work.group_size, work.length)
        pieces: list[Tensor] = []
        for turn in range(work.turns):
            pieces += self._speak(model, logits, cache)
            if turn + 1 < work.turns:
                pieces.append(self._observe(tokenizer, turn + 1))
                logits = self._read(model, torch.cat(pieces[-2:], dim=1), cache)
        self._played += len(prompts)
        mask = ([1] * work.new_tokens + [0] * work.observation) * work.turns
        mask = mask[: -work.observation]
        return {
            "prompt_ids": [ids for ids in prompt_ids for _ in range(work.group_size)],
            "completion_ids": torch.cat(pieces, dim=1).tolist(),
            "logprobs": None,
            "env_mask": [mask] * len(prompts),
        }

    def _speak(self, model: Any, logits: Tensor, cache: DynamicCache) -> list[Tensor]:
        """Sample a turn, one (B, 1) a token; the last one is not read yet."""
        tokens = [_draw(logits)]
        for _ in range(self._work.new_tokens - 1):
            tokens.append(_draw(self._read(model, tokens[-1], cache)))
        return tokens

    def _observe(self, tokenizer: Any, turn: int) -> Tensor:
        texts = [
            f"<|end|><|user|>{self._work.observation_text(self._played + place, turn)}<|end|><|assistant|>"
            for place in range(self._work.trajectories)
        ]
        return torch.tensor([tokenizer.encode(text) for text in texts])

    def _read(self, model: Any, ids: Tensor, cache: DynamicCache) -> Tensor:
        """Return the logits (B, V) after the last of `ids`, (B, L)."""
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = output.logits[:, -1]
        return logits


def _draw(logits: Tensor) -> Tensor:
    return torch.multinomial(torch.softmax(logits, dim=-1), 1)


class Finished(Exception):
    """The other end wants no more steps, and `train` has no other way out before one."""


class Gate(TrainerCallback):
    """Lets a step begin when the other end says so, and tells what it took."""

    def __init__(self, connection: Any) -> None:
        """Take the connection."""
        self._connection = connection
        self.trainer: Peer | None = None

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Wait for permission."""
        if not self._connection.recv():
            raise Finished
        assert self.trainer is not None
        self.trainer.loss = 0.0
        self._watch = Stopwatch()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Send the measurement."""
        step, trainer = self._watch.lap(), self.trainer
        assert trainer is not None
        rollout = trainer.rollout
        update = Seconds(wall=step["wall"] - rollout["wall"], cpu=step["cpu"] - rollout["cpu"])
        self._connection.send(trainer.measurement(update))


def make_trainer(work: Work, model: Path, batch_size: int, callbacks: list[TrainerCallback]) -> Peer:
    """Return the trainer; `batch_size` is how many trajectories go forward and backward at once."""
    torch.set_num_threads(work.threads)
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [[{"role": "user", "content": work.prompt_text(seed)}] for seed in range(8 * work.groups)]
    prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    rewards = [float(place % 2) for place in range(work.trajectories)]
    config = GRPOConfig(
        output_dir=str(model / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        beta=0.0,
        learning_rate=1e-6,
        adam_beta2=0.95,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        max_steps=1_000_000,
        num_generations=work.group_size,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=work.trajectories // batch_size,
        max_completion_length=work.length - work.prompt,
        epsilon_high=0.28,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Peer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        reward_funcs=lambda completions, **_: rewards[: len(completions)],
        rollout_func=Rollout(work),
        callbacks=callbacks,
    )


def serve(work: Work, model: Path, update: bool, batch_size: int, connection: Any) -> None:
    """Do a step whenever the other end of `connection` sends True, and send what it took; False ends."""
    gate = Gate(connection)
    gate.trainer = trainer = make_trainer(work, model, batch_size, [gate])
    connection.send("ready")
    if update:
        with suppress(Finished):
            trainer.train()
        return
    trainer.model.train()
    prompts = trainer.train_dataset["prompt"]
    step = 0
    while connection.recv():
        chosen = [prompts[(step * work.groups + group) % len(prompts)] for group in range(work.groups)]
        trainer._generate_and_score_completions(
            [{"prompt": p} for p in chosen for _ in range(work.group_size)]
        )
        connection.send(trainer.measurement(None))
        step += 1

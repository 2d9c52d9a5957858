"""Training on the trie equals training on one sequence at a time; and what a run relies on beyond that."""

import asyncio
import copy
import math
import random
import shutil
from dataclasses import replace
from itertools import chain
from types import MethodType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from agentrl import (
    AgentRLError,
    Aggregation,
    Algorithm,
    Batch,
    Credit,
    Group,
    Sampling,
    Segment,
    Span,
    Task,
    Tokens,
    Trajectory,
    UsageError,
)
from agentrl.aggregation import token_weights
from agentrl.interfaces import Resources
from agentrl_torch import (
    TorchEngine,
    TorchTrainer,
    adaptation,
    attention,
    checkpoint,
    forward,
    loading,
    micro_batch,
)
from agentrl_torch.metrics import Tally
from agentrl_torch.update import Step

torch.set_num_threads(1)

VOCABULARY = 23
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]


class Probe(Algorithm):
    """A loss that depends on every column of its tokens, with given credit and aggregation."""

    def __init__(self, mode="token-mean", credits=None):
        super().__init__()
        self.mode = mode
        self.credits = credits

    @property
    def aggregation(self):
        return Aggregation(self.mode, 7 if self.mode == "constant" else None)

    def credit(self, batch):
        if self.credits:
            return self.credits
        rng = random.Random(5)
        return [
            [Credit([rng.gauss(0, 1) for _ in range(t.sampled)]) for t in group.trajectories]
            for group in batch.groups
        ]

    def loss(self, tokens: Tokens):
        ratio = (tokens.logprobs - tokens.old_logprobs).clamp(-2, 2).exp()
        clipped = torch.maximum(-tokens.advantages * ratio, -tokens.advantages * ratio.clamp(0.8, 1.28))
        tokens.log("turns", tokens.turn)
        return clipped + 0.01 * tokens.logprobs.square() * (1 + tokens.turn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a model directory with a tokenizer, as `--model` takes it."""
    path = tmp_path_factory.mktemp("model")
    make_model(Qwen2Config(**SIZE)).save_pretrained(path)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(path)
    return path


def make_model(config, dtype=torch.float32):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, so that mistakes show
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = MethodType(norm_without_rounding, module)
    return model


def norm_without_rounding(module, hidden):
    """Normalise in float64; transformers' norms go through float32, which would hide small mistakes."""
    return module.weight * hidden * (hidden.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


def trainer_for(folder, **options):
    trainer = TorchTrainer(TorchTrainer.Config(**{"learning_rate": 1e-2, **options}))
    trainer.start(folder, frozenset({"groups"}), 10, Resources())
    return trainer


# Trajectories


def segment(given, sampled, rng):
    """Return a segment with alternating runs of given and sampled ids."""
    ids, spans = [], []
    for turn, (before, run) in enumerate(zip(given, sampled, strict=True)):
        ids += before
        spans.append(Span(len(ids), [-rng.uniform(1, 4) for _ in run], turn))
        ids += run
    return Segment([*ids, 4, 5], spans)  # a last observation that nobody answered


def play(seed=0, tasks=3, size=3, prompt=6, turns=3):
    """Return groups with a shared prompt, common first turns, and contexts that start anew."""
    rng = random.Random(seed)

    def ids(low, high):
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(low, high))]

    groups = []
    for task in range(tasks):
        begin = ids(prompt, prompt)
        first = ids(1, 3)
        members = []
        for member in range(size):
            segments = []
            for _ in range(1 + member % 2):
                sampled = [first if rng.random() < 0.5 else ids(1, 3), *[ids(1, 4) for _ in range(turns - 1)]]
                given = [begin, *[ids(0, 5) for _ in range(turns - 1)]]
                segments.append(segment(given, sampled, rng))
            members.append(Trajectory(Task(f"task-{task}"), segments=segments, reward=float(member % 2)))
        groups.append(Group(members[0].task, members))
    return groups


def honest(groups, model):
    """Give all spans the log-probabilities that `model` would have reported."""
    groups = copy.deepcopy(groups)
    for part in segments_of(groups):
        logprobs = sequence_logprobs(model, part).tolist()
        for span in part.spans:
            span.logprobs = [logprobs.pop(0) for _ in span.logprobs]
    return groups


def segments_of(groups):
    return [s for group in groups for t in group.trajectories for s in t.segments]


# One sequence at a time: what the trie must equal


def sequence_logprobs(model, part):
    ids = torch.tensor(part.token_ids)
    logprobs = torch.log_softmax(model(ids[None]).logits[0], -1)
    places = torch.tensor([place for span in part.spans for place in range(span.start, span.stop)])
    return logprobs[places - 1, ids[places]]


def naive_gradient(model, groups, algorithm):
    """Return loss and gradients, computed without trie, packing or micro-batches."""
    trajectories = [t for group in groups for t in group.trajectories]
    credits = list(chain(*algorithm.credit(Batch(groups))))
    weights = token_weights([t.sampled for t in trajectories], algorithm.aggregation)
    model.zero_grad()
    total = torch.zeros((), dtype=model.dtype)
    for trajectory, credit, weight in zip(trajectories, credits, weights, strict=True):
        logprobs = torch.cat([sequence_logprobs(model, part) for part in trajectory.segments])
        rollout = torch.tensor([x for span in trajectory.spans for x in span.logprobs], dtype=model.dtype)
        turn = torch.tensor([span.turn for span in trajectory.spans for _ in span.logprobs])
        advantages = torch.tensor(list(credit.advantages), dtype=model.dtype)
        tokens = Tokens(logprobs, rollout, rollout, advantages, turn * 0, turn, 1, logprobs.detach())
        total = total + weight * algorithm.loss(tokens).sum()
    total.backward()
    return float(total.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}


def trie_gradient(model, groups, algorithm, budget=10**6, way=attention.FLASH):
    """Return loss and gradients of a copy of `model`, computed as the trainer does."""
    model = copy.deepcopy(model)
    adaptation.use_trie(model, way)
    batch = Batch(groups)
    step = Step(
        forward.Policy(model), model.dtype, budget, algorithm, batch, algorithm.credit(batch), True, 1
    )
    loss = step.accumulate(micro_batch.encode(groups), Tally(), None)
    return loss, {name: p.grad for name, p in model.named_parameters()}


def assert_equal_gradients(left, right, relative=1e-9):
    assert left[0] == pytest.approx(right[0], rel=relative)
    norm = math.sqrt(sum(float(g.square().sum()) for g in right[1].values()))
    gap = math.sqrt(sum(float((left[1][n] - g).square().sum()) for n, g in right[1].items()))
    assert gap <= relative * norm


@pytest.mark.parametrize("way", [attention.PLAIN, attention.FLASH])
@pytest.mark.parametrize("mode", MODES)
def test_trie_training_equals_one_sequence_at_a_time(mode, way):
    model = make_model(Qwen2Config(**SIZE), torch.float64)
    groups, algorithm = play(), Probe(mode)
    expected = naive_gradient(model, groups, algorithm)
    assert_equal_gradients(trie_gradient(model, groups, algorithm, way=way), expected)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from([1, 20, 60, 10**6]),
    st.sampled_from(MODES),
)
def test_trie_training_equals_one_sequence_at_a_time_whatever_is_played(
    seed, tasks, size, prompt, turns, budget, mode
):
    model = make_model(Qwen2Config(**SIZE, tie_word_embeddings=bool(seed % 2)), torch.float64)
    groups, algorithm = play(seed, tasks, size, prompt, turns), Probe(mode)
    expected = naive_gradient(model, groups, algorithm)
    assert_equal_gradients(trie_gradient(model, groups, algorithm, budget), expected)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZE),
        Qwen3Config(**SIZE, head_dim=8),
        MistralConfig(**SIZE, sliding_window=None),
        CohereConfig(**SIZE, logit_scale=0.5),
        GraniteConfig(**SIZE, logits_scaling=3.0, attention_multiplier=0.2),
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=128),
    ],
    ids=lambda config: config.model_type,
)
def test_any_causal_model_trains_exactly(config):
    model = make_model(config, torch.float64)
    groups, algorithm = play(tasks=2), Probe()
    found, expected = trie_gradient(model, groups, algorithm), naive_gradient(model, groups, algorithm)
    assert_equal_gradients(found, expected, relative=1e-6)  # some families round to float32 inside


@pytest.mark.parametrize(
    "config",
    [MistralConfig(**SIZE, sliding_window=64), Gemma2Config(**SIZE, head_dim=8, sliding_window=64)],
    ids=lambda config: config.model_type,
)
def test_models_that_do_not_see_everything_are_refused(config):
    with pytest.raises(UsageError, match="shared prefixes"):
        adaptation.use_trie(make_model(config))


def test_a_model_that_computes_something_else_is_refused(monkeypatch):
    model = make_model(Qwen2Config(**SIZE))
    monkeypatch.setattr(forward, "project", lambda model, hidden: model.lm_head(hidden) * 1.1)
    with pytest.raises(UsageError, match="computes something else on shared prefixes"):
        adaptation.use_trie(model)


@pytest.mark.parametrize("budget", [1, 30, 100])
def test_micro_batches_add_up_to_the_whole(budget):
    model, groups, algorithm = make_model(Qwen2Config(**SIZE), torch.float64), play(), Probe()
    assert_equal_gradients(
        trie_gradient(model, groups, algorithm, budget), trie_gradient(model, groups, algorithm)
    )


def test_projecting_piece_by_piece_changes_nothing(monkeypatch):
    model, groups, algorithm = make_model(Qwen2Config(**SIZE), torch.float64), play(), Probe()
    whole = trie_gradient(model, groups, algorithm)
    monkeypatch.setattr(forward, "LOGITS", 5 * VOCABULARY)
    assert_equal_gradients(trie_gradient(model, groups, algorithm), whole)


def test_gradient_checkpointing_changes_nothing():
    model, groups, algorithm = make_model(Qwen2Config(**SIZE), torch.float64), play(), Probe()
    whole = trie_gradient(model, groups, algorithm)
    adaptation.keep_no_activations(model)
    assert_equal_gradients(trie_gradient(model, groups, algorithm), whole)


class Skipping(Probe):
    """A loss that is 0 where the advantage is, which every other trajectory has not."""

    skips_zero_advantage = True

    def credit(self, batch):
        return [
            [Credit([float(member % 2)] * t.sampled) for member, t in enumerate(group.trajectories)]
            for group in batch.groups
        ]

    def loss(self, tokens):
        return -tokens.advantages * tokens.logprobs


@pytest.mark.parametrize("mode", MODES)
def test_trajectories_that_teach_nothing_are_skipped_exactly(mode):
    model, groups = make_model(Qwen2Config(**SIZE), torch.float64), play()
    expected = naive_gradient(model, groups, Skipping(mode))
    assert_equal_gradients(trie_gradient(model, groups, Skipping(mode)), expected)


# Updates


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.weights().items()}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def run(trainer, updates, algorithm=None):
    """Make updates on honest trajectories and return the metrics of each."""
    return [prepare_and_update(trainer, play_with(trainer, seed), algorithm) for seed in updates]


def prepare_and_update(trainer, groups, algorithm=None):
    algorithm = algorithm or Probe()
    return learn(trainer, trainer.prepare(groups, algorithm.needs), algorithm)


def learn(trainer, batch, algorithm=None):
    algorithm = algorithm or Probe()
    return trainer.update(batch, algorithm.credit(batch), algorithm)


def play_with(trainer, seed=0):
    """Return groups whose log-probabilities are those of the trainer's own actor."""
    actor = make_model(Qwen2Config(**SIZE))
    actor.load_state_dict(trainer.weights(), strict=False)
    actor.to(next(iter(trainer.weights().values())).dtype)
    with torch.no_grad():
        return honest(play(seed), actor)


def test_an_update_reports_what_it_did(folder):
    (metrics,) = run(trainer_for(folder), [0])
    assert metrics["trainer/learning_rate"] == 1e-2
    assert metrics["trainer/tokens"] == sum(s.sampled for s in segments_of(play()))
    assert metrics["trainer/sharing"] > 1
    assert metrics["trainer/context_tokens"] / metrics["trainer/unique_tokens"] == metrics["trainer/sharing"]
    assert metrics["trainer/grad_norm"] > 0
    assert math.isfinite(metrics["trainer/loss"])
    assert 0 < metrics["policy/entropy"] < math.log(VOCABULARY)
    assert 0 < metrics["policy/turns"] < 2
    assert metrics["policy/ratio_min"] == pytest.approx(1, abs=1e-4)
    assert metrics["policy/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert 0 < metrics["audit/max_logprob_difference"] < 1e-4


def test_an_update_in_which_nothing_is_taught_moves_like_a_zero_gradient(folder):
    class Silent(Skipping):
        def credit(self, batch):
            return [[Credit([0.0] * t.sampled) for t in group.trajectories] for group in batch.groups]

    class Computed(Silent):
        skips_zero_advantage = False

    skipping, computing = trainer_for(folder), trainer_for(folder)
    for trainer, algorithm in ((skipping, Silent()), (computing, Computed())):
        run(trainer, [0])
        (metrics,) = run(trainer, [1], algorithm)
        assert metrics["trainer/grad_norm"] == metrics["trainer/loss"] == 0
        assert metrics["trainer/skipped"] == algorithm.skips_zero_advantage
    assert_same_bits(skipping.weights(), computing.weights())


def test_updates_are_the_same_to_the_bit(folder):
    first, second = trainer_for(folder), trainer_for(folder)
    assert run(first, [0, 1]) == run(second, [0, 1])
    assert_same_bits(first.weights(), second.weights())


def test_training_resumes_to_the_bit(folder, tmp_path):
    options = {"schedule": "cosine", "warmup_steps": 1, "weight_decay": 0.1, "minibatches": 2, "epochs": 2}
    through, resumed = trainer_for(folder, **options), trainer_for(folder, **options)
    run(through, [0, 1])
    through.save(tmp_path / "checkpoint")
    expected = run(through, [2, 3])
    resumed.load(tmp_path / "checkpoint")
    assert run(resumed, [2, 3]) == expected
    assert_same_bits(through.weights(), resumed.weights())


def test_a_checkpoint_of_another_model_is_refused(folder, tmp_path):
    trainer = trainer_for(folder)
    with pytest.raises(UsageError, match=r"lacks weights\.safetensors, optimizer\.pt"):
        trainer.load(tmp_path)
    trainer.save(tmp_path / "checkpoint")
    make_model(Qwen2Config(**{**SIZE, "intermediate_size": 32})).save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match="is of another model"):
        trainer_for(tmp_path / "other").load(tmp_path / "checkpoint")


def test_the_model_that_is_written_is_the_one_that_was_trained(folder, tmp_path):
    trainer = trainer_for(folder)
    run(trainer, [0])
    trainer.save_model(tmp_path / "model")
    again = trainer_for(tmp_path / "model")
    assert_same_bits(trainer.weights(), again.weights())
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_a_tokenizer_that_cannot_be_written_is_an_error_of_the_operating_system(folder, tmp_path):
    (tmp_path / "model" / "tokenizer.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        trainer_for(folder).save_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (RuntimeError("I/O error: No space left on device (os error 28)"), OSError),
        (RuntimeError("something else"), RuntimeError),
        (UsageError("cannot load the tokenizer: No such file (os error 2)"), UsageError),
    ],
)
def test_what_libraries_say_of_a_full_disk_is_an_error_of_the_operating_system(error, found):
    with pytest.raises(found) as caught, checkpoint.as_os_error():
        raise error
    assert caught.type is found
    assert found is not OSError or caught.value.errno == 28


def test_tied_weights_are_handed_over_once(tmp_path):
    make_model(Qwen2Config(**SIZE, tie_word_embeddings=True)).save_pretrained(tmp_path)
    names = trainer_for(tmp_path).weights().keys()
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_the_engines_logprobs_and_recomputed_ones_train_alike(folder):
    options = {"dtype": "float64", "minibatches": 2, "epochs": 2}
    trusted = trainer_for(folder, **options)
    recomputed = trainer_for(folder, **options, old_logprobs="recompute")
    one, two = run(trusted, [0]), run(recomputed, [0])
    assert one[0]["trainer/loss"] == pytest.approx(two[0]["trainer/loss"], rel=1e-9)
    for name, tensor in trusted.weights().items():
        torch.testing.assert_close(tensor, recomputed.weights()[name], rtol=1e-8, atol=1e-10)


def test_recomputed_logprobs_are_in_the_batch_if_an_update_makes_several_steps(folder):
    trainer = trainer_for(folder, epochs=2, old_logprobs="recompute")
    groups = play_with(trainer)
    batch = trainer.prepare(groups, frozenset())
    for group, facts in zip(groups, batch.logprobs, strict=True):
        for trajectory, logprobs in zip(group.trajectories, facts, strict=True):
            reported = [x for span in trajectory.spans for x in span.logprobs]
            assert logprobs == pytest.approx(reported, abs=1e-4)
    assert trainer_for(folder).prepare(groups, frozenset()).logprobs is None


def test_the_reference_stays_the_model_that_was_loaded(folder):
    trainer = TorchTrainer(TorchTrainer.Config(learning_rate=0.1))
    trainer.start(folder, frozenset({"reference"}), 10, Resources())
    groups = play_with(trainer)
    before = trainer.prepare(groups, frozenset({"reference"})).reference_logprobs
    (metrics,) = run(trainer, [0])
    assert metrics["trainer/grad_norm"] > 0
    assert trainer.prepare(groups, frozenset({"reference"})).reference_logprobs == before
    with pytest.raises(UsageError, match="started without a reference"):
        trainer_for(folder).prepare(groups, frozenset({"reference"}))


def test_failed_and_silent_trajectories_take_no_part(folder):
    trainer = trainer_for(folder)
    groups = play_with(trainer)
    groups[0].trajectories[0].stop = "error"
    groups[1].trajectories.append(Trajectory(groups[1].task, segments=[Segment([1, 2])]))
    for failed in groups[2].trajectories:
        failed.stop = "error"
    batch = trainer.prepare(groups, frozenset())
    assert [len(group.trajectories) for group in batch.groups] == [2, 4]
    algorithm = Probe()
    trained = trainer.update(batch, algorithm.credit(batch), algorithm)["trainer/tokens"]
    assert trained == sum(t.sampled for group in batch.groups for t in group.trajectories)


def test_tokens_that_no_model_sampled_are_not_audited_and_have_ratio_one(folder):
    trainer = trainer_for(folder)
    groups = play()
    for part in segments_of(groups):
        part.spans = [replace(span, logprobs=[math.nan] * len(span.logprobs)) for span in part.spans]
    batch = trainer.prepare(groups, frozenset())
    metrics = trainer.update(batch, Probe().credit(batch), Probe())
    assert metrics["policy/ratio_min"] == metrics["policy/ratio_max"] == 1
    assert not any(name.startswith("audit") for name in metrics)


@pytest.mark.parametrize("options", [{}, {"epochs": 2, "old_logprobs": "recompute"}])
def test_the_audit_stops_an_update_on_a_token_that_engine_and_trainer_see_differently(folder, options):
    trainer = trainer_for(folder, **options)
    groups = play_with(trainer)
    groups[1].trajectories[2].segments[0].spans[1].logprobs[0] -= 0.5
    before = weights_of(trainer)
    with pytest.raises(AgentRLError, match=r"by 0\.5 nats \(task 'task-1', turn 1.*audit_threshold"):
        prepare_and_update(trainer, groups)
    assert_same_bits(before, weights_of(trainer))
    metrics = prepare_and_update(trainer_for(folder, audit_threshold=1.0), groups)
    assert metrics["audit/max_logprob_difference"] == pytest.approx(0.5, abs=1e-3)


class Broken(Probe):
    """A loss that goes wrong in one of several ways."""

    def loss(self, tokens):
        logprobs = tokens.logprobs
        match self.mode:
            case "nan":
                return logprobs * math.nan
            case "gradient":
                return (logprobs - logprobs.detach()).abs().sqrt()  # its slope at 0 is infinite
            case "shape":
                return logprobs.sum()
        raise AssertionError(self.mode)

    @property
    def aggregation(self):
        return Aggregation()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("nan", r"update 1: the loss is not finite \(tasks 'task-0', 'task-1', 'task-2'\)"),
        ("gradient", "update 1: the actor's gradient is nan"),
        ("shape", r"Broken\.loss returned the shape \(\)"),
    ],
)
def test_a_broken_loss_stops_the_run_and_writes_nothing(folder, mode, message):
    trainer = trainer_for(folder)
    before = weights_of(trainer)
    with pytest.raises(AgentRLError, match=message):
        run(trainer, [0], Broken(mode))
    assert_same_bits(before, weights_of(trainer))
    clean = trainer_for(folder)
    assert run(trainer, [0]) == run(clean, [0])  # no gradient is left over
    assert_same_bits(clean.weights(), trainer.weights())


def test_credit_that_does_not_fit_the_tokens_is_refused(folder):
    trainer = trainer_for(folder)
    batch = trainer.prepare(play_with(trainer), frozenset())
    good = Probe().credit(batch)
    with pytest.raises(AgentRLError, match="one Credit for each trajectory"):
        trainer.update(batch, good[:-1], Probe())
    wrong = [[Credit([0.0, 0.0]) for _ in members] for members in good]
    with pytest.raises(AgentRLError, match="gave 2 numbers to a trajectory of task 'task-0'"):
        trainer.update(batch, wrong, Probe())
    mixed = [list(members) for members in good]
    mixed[0][0] = replace(mixed[0][0], returns=mixed[0][0].advantages)
    with pytest.raises(AgentRLError, match="gave returns to some trajectories only"):
        trainer.update(batch, mixed, Probe())


def test_a_damaged_model_is_one_sentence_with_the_remedy(folder, tmp_path):
    copy_of = shutil.copytree(folder, tmp_path / "model")
    weights = copy_of / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for load in (loading.load_model, loading.map_model):
        with pytest.raises(UsageError, match=r"model' is damaged \(.*\); copy it again"):
            load(copy_of, torch.float32, "cpu")
    (copy_of / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer \(tokenizer.json\); copy the model's"):
        loading.load_tokenizer(copy_of)
    (copy_of / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match="cannot load the tokenizer") as caught:
        loading.load_tokenizer(copy_of)
    assert "\n" not in str(caught.value)


def test_an_update_with_nothing_to_train_on_is_refused(folder):
    trainer = trainer_for(folder)
    with pytest.raises(UsageError, match="nothing to train on"):
        trainer.update(trainer.prepare([], frozenset()), [], Probe())


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_learning_rate_follows_its_schedule(folder, schedule, rates):
    trainer = TorchTrainer(
        TorchTrainer.Config(learning_rate=1.0, schedule=schedule, warmup_steps=2, max_grad_norm=1e-9)
    )
    trainer.start(folder, frozenset(), 6, Resources())
    trainer.config = trainer.config.model_copy(update={"audit_threshold": 1e9})
    metrics = run(trainer, [0] * 6)
    assert [m["trainer/learning_rate"] for m in metrics] == pytest.approx(rates, abs=1e-6)


def test_fast_and_plain_kernels_train_alike(folder):
    fast, plain = trainer_for(folder), trainer_for(folder, kernels="plain")
    one, two = run(fast, [0]), run(plain, [0])
    assert one[0]["trainer/loss"] == pytest.approx(two[0]["trainer/loss"], rel=1e-4)
    assert one[0]["trainer/grad_norm"] == pytest.approx(two[0]["trainer/grad_norm"], rel=1e-4)


def test_bfloat16_trains_weights_that_stay_in_float32(folder):
    trainer = trainer_for(folder, dtype="bfloat16")
    (metrics,) = run(trainer, [0])
    assert {tensor.dtype for tensor in trainer.weights().values()} == {torch.float32}
    assert 1e-4 < metrics["audit/max_logprob_difference"] < 0.5


async def ask_twice(engine, prompt, seed):
    """Play two turns with the engine, each time at another temperature, and return the trajectory."""
    trajectory = Trajectory(Task("round trip"), segments=[Segment(list(prompt))], reward=float(seed))
    part = trajectory.segments[0]
    for turn in range(2):
        sampling = Sampling(
            temperature=(0.5, 1.5, 1, 0)[(seed + turn) % 4], max_tokens=5, seed=10 * seed + turn
        )
        completion = await engine.generate(part.token_ids, sampling, f"session {seed}")
        span = Span(len(part.token_ids), completion.logprobs, turn, temperature=completion.temperature)
        part.spans.append(span)
        part.token_ids += [*completion.token_ids, 7, 8]
    return trajectory


@pytest.mark.parametrize("options", [{}, {"minibatches": 2, "old_logprobs": "recompute"}])
def test_tokens_that_older_weights_sampled_are_not_audited(folder, options):
    trainer, algorithm = trainer_for(folder, **options), Probe()
    groups = play_with(trainer)
    *older, newest = [span for trajectory in groups[0].trajectories for span in trajectory.spans]
    for span in older:
        span.version, span.logprobs = 6, [logprob - 1 for logprob in span.logprobs]
    for span in (newest, *(span for t in groups[1].trajectories for span in t.spans)):
        span.version = 7
    with pytest.raises(AgentRLError, match="disagree about a token by 1 nats"):
        prepare_and_update(trainer_for(folder, **options), groups)
    metrics = learn(trainer, trainer.prepare(groups, algorithm.needs, 7))
    assert 0 <= metrics["audit/max_logprob_difference"] < 1e-4
    newest.logprobs, again = [logprob - 1 for logprob in newest.logprobs], trainer_for(folder, **options)
    with pytest.raises(AgentRLError, match="disagree about a token by 1 nats"):
        learn(again, again.prepare(groups, algorithm.needs, 7))


def test_what_the_engine_samples_passes_the_audit_update_after_update(folder):
    trainer, engine = trainer_for(folder), TorchEngine()

    async def play_and_train():
        await engine.start(folder, Resources())
        found = []
        for version in range(3):
            await engine.load_weights(trainer.weights(), version)
            played = await asyncio.gather(*(ask_twice(engine, [3, 4, 5], seed) for seed in range(4)))
            found.append(prepare_and_update(trainer, [Group(played[0].task, played)]))
        await engine.close()
        return found

    for metrics in asyncio.run(play_and_train()):
        assert metrics["audit/max_logprob_difference"] < 1e-3
        assert metrics["trainer/grad_norm"] > 0

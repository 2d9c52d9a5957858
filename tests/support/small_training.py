"""Training of small models: what is played, a loss that depends on everything in it, and updates."""

import copy
import random
from types import MethodType

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from agentrl import Aggregation, Algorithm, Credit, Group, Segment, Span, Task, Tokens, Trajectory
from agentrl.interfaces import Resources
from agentrl_torch import TorchTrainer

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


def make_model(config, dtype=torch.float32):
    """Return a model far from uniform; in float64 its norms do not round."""
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


def write_model(path, config=None):
    """Write a model directory with a tokenizer, as `--model` takes it."""
    make_model(config or Qwen2Config(**SIZE)).save_pretrained(path)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(path)
    return path


def trainer_for(folder, **options):
    """Return a trainer of the model in a folder."""
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
    """Return all segments of some groups."""
    return [s for group in groups for t in group.trajectories for s in t.segments]


def sequence_logprobs(model, part):
    """Return the log-probabilities of what was sampled in a segment, computed on it alone."""
    ids = torch.tensor(part.token_ids)
    logprobs = torch.log_softmax(model(ids[None]).logits[0], -1)
    places = torch.tensor([place for span in part.spans for place in range(span.start, span.stop)])
    return logprobs[places - 1, ids[places]]


# Updates


def weights_of(trainer):
    """Return a copy of a trainer's weights."""
    return {name: tensor.clone() for name, tensor in trainer.weights().items()}


def assert_same_bits(left, right):
    """See to it that weights are the same to the bit."""
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def run(trainer, updates, algorithm=None):
    """Make updates on honest trajectories and return the metrics of each."""
    return [prepare_and_update(trainer, play_with(trainer, seed), algorithm) for seed in updates]


def prepare_and_update(trainer, groups, algorithm=None):
    """Make an update on groups and return its metrics."""
    algorithm = algorithm or Probe()
    return learn(trainer, trainer.prepare(groups, algorithm.needs), algorithm)


def learn(trainer, batch, algorithm=None):
    """Make an update on a batch and return its metrics."""
    algorithm = algorithm or Probe()
    return trainer.update(batch, algorithm.credit(batch), algorithm)


def play_with(trainer, seed=0):
    """Return groups whose log-probabilities are those of the trainer's own actor."""
    actor = make_model(Qwen2Config(**SIZE))
    actor.load_state_dict(trainer.weights(), strict=False)
    actor.to(next(iter(trainer.weights().values())).dtype)
    with torch.no_grad():
        return honest(play(seed), actor)

"""Attention over the trie through `flex_attention`, which is there for GPUs.

On the CPU PyTorch has its kernel for the forward pass only, and refuses inputs that need gradients. Past this
refusal it computes both passes without a kernel, from the same masks, the same traced graph and with the same
autograd: this is what most tests here run.
"""

import logging
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as of_torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentrl import Group, Segment, Span, Task, Trajectory, UsageError
from agentrl.interfaces import Resources
from agentrl_grpo import GRPO
from agentrl_torch import TorchTrainer, adaptation, attention, choosing_attention, flex
from agentrl_torch.attention import plain_attention
from agentrl_torch.footprint import Plan
from agentrl_torch.layout import lay_out
from agentrl_torch.sizes import measure
from agentrl_torch.trie import build
from agentrl_torch.world import World

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
sequences_of_few_ids = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=8)


def accept(*tensors):
    """Do not refuse gradients on the CPU."""


@pytest.fixture(scope="module")
def kernel():
    """Return what a GPU would get, but computed without a kernel, and what counts its graphs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend=counter))
        function = flex.compiled.__wrapped__()
    yield function, counter
    torch._dynamo.reset()


@pytest.fixture
def traced(kernel, monkeypatch):
    """Let the CPU take the way of a GPU, and return what counts the graphs."""
    function, counter = kernel
    monkeypatch.setattr(of_torch, "_validate_device", accept)
    monkeypatch.setattr(flex, "compiled", lambda: function)
    return counter


@pytest.fixture
def small_blocks(monkeypatch):
    """Let tries of a few tokens have several blocks."""
    monkeypatch.setattr(flex, "BLOCK", 8)
    monkeypatch.setattr(flex, "FEWEST", 0)
    monkeypatch.setattr(flex, "DEVICES", frozenset({"cpu"}))


def trie_of(sequences):
    return build([np.array(ids, np.int32) for ids in sequences])


def random_trie(seed, longest, count=6, ids=3):
    rng = np.random.default_rng(seed)
    return trie_of([rng.integers(0, ids, rng.integers(1, longest + 1)) for _ in range(count)])


def seen_by_nodes(trie):
    """Return which slot sees which, (T, T), as the nodes say."""
    seen_TT = np.zeros((len(trie), len(trie)), bool)
    for node in trie.nodes:
        seen_TT[node.start : node.subtree_stop, node.start : node.stop] = True
    return np.tril(seen_TT)


def expected_mask(trie, reads, shape):
    """Return what queries see, slots that were added included, from the whole matrix."""
    seen_TT = seen_by_nodes(trie)
    keys = shape[1]
    whole = np.zeros((keys, keys), bool)
    whole[: len(trie), : len(trie)] = seen_TT
    whole[len(trie) :, len(trie) :] = np.tri(keys - len(trie), dtype=bool)
    rows = np.full(shape[0], keys - 1)
    rows[: len(reads)] = reads
    return whole[rows]


def by_block(mask_QK):
    rows, columns = (size // flex.BLOCK for size in mask_QK.shape)
    return mask_QK.reshape(rows, flex.BLOCK, columns, flex.BLOCK)


def listed(counts, indices):
    """Return which blocks a list of blocks names, (I, J)."""
    found = np.zeros(indices.shape[-2:], bool)
    for row, (count, which) in enumerate(zip(counts[0, 0], indices[0, 0], strict=True)):
        found[row, which[:count]] = True
    return found


@given(sequences_of_few_ids, st.data())
def test_the_block_mask_is_that_of_the_whole_matrix(sequences, data):
    trie = trie_of(sequences)
    slots = st.sets(st.integers(0, len(trie) - 1), min_size=1)
    reads = np.array(sorted(data.draw(slots)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "BLOCK", 4)
        masks = flex.make_masks(lay_out(trie, reads), CPU)
        for mask, queries in ((masks.every, np.arange(len(trie))), (masks.last, reads)):
            expected = expected_mask(trie, queries, mask.shape[-2:])
            assert (
                of_torch.create_mask(mask.mask_mod, 1, 1, *mask.shape[-2:], CPU)[0, 0].numpy() == expected
            ).all()
            blocks = by_block(expected)
            full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
            some = listed(mask.kv_num_blocks, mask.kv_indices)
            assert (full == blocks.all((1, 3))).all()
            assert not (full & some).any()
            # A block between two slots that are read may be listed for nothing.
            assert (some | full | ~blocks.any((1, 3))).all()
            if mask is masks.every:
                assert (some == blocks.any((1, 3)) & ~full).all()


def test_the_block_mask_is_the_one_that_pytorch_would_make():
    trie = random_trie(0, 700, ids=2)
    ours = flex.make_masks(lay_out(trie), CPU).every
    theirs = of_torch.create_block_mask(ours.mask_mod, None, None, *ours.shape[-2:], CPU, flex.BLOCK)
    assert ours.shape == theirs.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        assert torch.equal(getattr(ours, f"{name}_num_blocks"), getattr(theirs, f"{name}_num_blocks")), name
        assert torch.equal(getattr(ours, f"{name}_indices"), getattr(theirs, f"{name}_indices")), name


def test_a_mask_of_many_slots_takes_little_memory():
    shared = np.arange(4000)
    trie = trie_of([np.concatenate([shared, 5000 * member + np.arange(5000)]) for member in range(1, 7)])
    mask = flex.make_masks(lay_out(trie), CPU).every
    assert len(trie) == 34_000
    assert sum(tensor.nbytes for tensor in mask.as_tuple() if isinstance(tensor, torch.Tensor)) < 4 * 2**20
    computed = (mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) * flex.BLOCK**2
    lengths = [(node.stop - node.start, node.subtree_stop - node.stop) for node in trie.nodes]
    pairs = sum(own * (own + 1) // 2 + own * below for own, below in lengths)
    assert pairs <= computed < 1.1 * pairs


def through_flex(query, key, value, trie, reads, scale):
    masks = flex.make_masks(lay_out(trie, None if reads is None else reads.numpy()), query.device)
    if reads is None:
        return flex.attend(query, key, value, masks.every, scale)
    return flex.attend(query[:, :, masks.reads], key, value, masks.last, scale)


def plainly(query, key, value, trie, reads, scale):
    out = plain_attention(query, key, value, trie.nodes, scale)
    return out if reads is None else out[:, :, reads.to(out.device)]


def results(way, trie, heads, dtype, reads=None, device=CPU, width=16, scale=0.3):
    """Return the output of one attention over `trie`, and its gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)

    counts = (heads[0], heads[1], heads[1])
    query, key, value = (draw(1, len(trie), n, width).transpose(1, 2).requires_grad_() for n in counts)
    out = way(query, key, value, trie, reads, scale)
    gradients = torch.autograd.grad(out, (query, key, value), draw(*out.shape))
    return [out.detach(), *gradients]


def some_of(trie):
    return torch.arange(0, len(trie), 3)


TRIES = {
    "deep branching": random_trie(1, 60, 12, ids=2),
    "many roots": random_trie(2, 40, 6, ids=50),
    "one sequence": trie_of([range(37)]),
    "one token": trie_of([[1]]),
    "whole blocks": trie_of([range(32)]),
}


def assert_equal(trie, heads, dtype, tolerance):
    for reads in (None, some_of(trie)):
        found, exact = (results(way, trie, heads, dtype, reads) for way in (through_flex, plainly))
        torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("which", TRIES)
def test_flex_attention_equals_the_plain_way_forward_and_backward(traced, small_blocks, which):
    assert_equal(TRIES[which], (6, 2), torch.float64, 1e-12)


@pytest.mark.parametrize(
    ("heads", "dtype", "tolerance"),
    [((2, 2), torch.float64, 1e-12), ((4, 1), torch.float32, 1e-4), ((14, 2), torch.bfloat16, 0.1)],
)
def test_flex_attention_holds_for_all_heads_and_types(traced, small_blocks, heads, dtype, tolerance):
    assert_equal(TRIES["deep branching"], heads, dtype, tolerance)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences_of_few_ids)
def test_flex_attention_equals_the_plain_way_on_any_trie(traced, sequences):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "BLOCK", 8)
        assert_equal(trie_of(sequences), (6, 2), torch.float64, 1e-12)


def test_one_graph_does_for_tries_of_all_sizes(traced):
    def graphs(*lengths):
        before = traced.frame_count
        for seed, length in enumerate(lengths):
            results(through_flex, random_trie(seed, length), (4, 4), torch.float32, width=32)
        return traced.frame_count - before

    graphs(100)
    assert graphs(64, 20, 128, 300, 129, 1) == 0


SIZE = {
    "hidden_size": 32,
    "head_dim": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 23,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a model directory."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZE))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, so that mistakes show
    model.save_pretrained(path)
    return path


def played(members=4, turns=3):
    """Return groups with a prompt in common, and a few tokens that are sampled in each turn."""
    rng = np.random.default_rng(0)
    groups = []
    for task in ("a", "b"):
        prompt = rng.integers(0, 23, 11).tolist()
        trajectories = []
        for member in range(members):
            segment = Segment(list(prompt))
            for turn in range(turns):
                sampled = rng.integers(0, 23, rng.integers(1, 5)).tolist()
                # No model sampled these, so there is nothing to audit.
                segment.spans.append(Span(len(segment.token_ids), [float("nan")] * len(sampled), turn))
                segment.token_ids += [*sampled, *rng.integers(0, 23, 4).tolist()]
            trajectories.append(Trajectory(Task(task), segments=[segment], reward=float(member % 2)))
        groups.append(Group(Task(task), trajectories))
    return groups


def update(folder, device="cpu", **options):
    """Return the weights after an update with a reference, and what it reports."""
    needs = frozenset({"groups", "reference"})
    trainer = TorchTrainer(TorchTrainer.Config(learning_rate=1e-2, micro_batch_tokens=100, **options))
    trainer.start(folder, needs, 10, Resources(device=device))
    algorithm = GRPO(GRPO.Config(kl="k3", kl_coefficient=0.1))
    batch = trainer.prepare(played(), needs)
    metrics = trainer.update(batch, algorithm.credit(batch), algorithm)
    return {name: tensor.clone() for name, tensor in trainer.weights().items()}, metrics


def assert_same_update(found, expected, tolerance):
    assert_same_gradient(found, expected, tolerance)
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=tolerance)


def assert_same_gradient(found, expected, tolerance):
    assert found[1]["trainer/loss"] == pytest.approx(
        expected[1]["trainer/loss"], rel=tolerance, abs=tolerance
    )
    assert found[1]["trainer/grad_norm"] == pytest.approx(expected[1]["trainer/grad_norm"], rel=tolerance)


def words(caplog):
    """Return what the run would have shown as warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("recompute", [False, True])
def test_an_update_is_the_same_in_all_three_ways(
    traced, folder, monkeypatch, small_blocks, recompute, caplog
):
    options = {"dtype": "float64", "gradient_checkpointing": recompute}
    calls = []
    attend = flex.attend

    def watched(query, key, *others, **named):
        if query.requires_grad:
            calls.append((query.shape[2], key.shape[2]))
        return attend(query, key, *others, **named)

    monkeypatch.setattr(flex, "attend", watched)
    monkeypatch.setattr(choosing_attention, "choose", lambda *_: (attention.FLEX, None))
    by_flex = update(folder, **options)
    assert len(calls) >= 6
    assert any(queries < keys for queries, keys in calls)  # the last layer, where it is read
    calls.clear()
    monkeypatch.setattr(choosing_attention, "choose", lambda *_: (attention.FLASH, None))
    by_flash = update(folder, **options)
    plain = update(folder, kernels="plain", **options)
    assert not calls
    assert not words(caplog)
    for found in (by_flex, by_flash):
        assert_same_update(found, plain, 1e-8)


def test_a_gpu_without_flex_attention_goes_the_plain_way_and_says_so_once(folder, monkeypatch, caplog):
    monkeypatch.setattr(flex, "DEVICES", frozenset({"cpu"}))  # where PyTorch has no backward pass
    flex.compiled.cache_clear()
    found = update(folder, dtype="float64")
    expected = update(folder, dtype="float64", kernels="plain")
    (said,) = words(caplog)
    assert said.startswith("attention goes node by node, which is slow on a GPU: flex_attention")
    assert "does not support backward on CPU" in said
    assert "\n" not in said
    assert_same_update(found, expected, 1e-8)


def choose(dtype=torch.float32, **world):
    return choosing_attention.choose(Qwen2Config(**SIZE), dtype, "cpu", **world)


def test_the_way_is_chosen_by_the_device_and_by_what_works(traced, monkeypatch):
    assert choose() == (attention.FLASH, None)
    monkeypatch.setattr(flex, "DEVICES", frozenset({"cpu"}))
    assert choose() == (attention.FLEX, None)
    assert choose(torch.bfloat16) == (attention.FLEX, None)
    right = flex.attend

    def off(query, *others, by):
        factors_Q1 = torch.ones(query.shape[2], 1)
        factors_Q1[-1] = by
        return right(query, *others) * factors_Q1

    for by in (1.01, float("nan")):
        monkeypatch.setattr(flex, "attend", partial(off, by=by))
        way, obstacle = choose()
        assert way == attention.PLAIN
        assert obstacle.startswith("its numbers are off by")

    def exhausted(*args, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(flex, "attend", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        choose()


def test_all_ranks_take_the_way_that_one_of_them_has_to_take(monkeypatch):
    class Beside(World):
        def gather(self, mine):
            return [mine, "no compiler"]

    monkeypatch.setattr(flex, "DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(choosing_attention, "_obstacle", lambda *_: None)
    assert choose(world=Beside(0, 2)) == (attention.PLAIN, "on rank 1: no compiler")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_has_to_compute_the_same_through_flex_attention(traced, folder, monkeypatch, dtype):
    def adapted():
        model = Qwen2ForCausalLM.from_pretrained(folder, dtype=max(dtype, torch.float32, key=bits))
        adaptation.use_trie(model, attention.FLEX, dtype)

    calls, attend = [], flex.attend

    def off(query, key, *others):
        calls.append((query.dtype, query.shape[2], key.shape[2]))
        return 3 * attend(query, key, *others)

    monkeypatch.setattr(flex, "DEVICES", frozenset({"cpu"}))
    choose(dtype)
    compiled = traced.frame_count
    adapted()  # raises if it does not
    assert traced.frame_count == compiled
    monkeypatch.setattr(flex, "attend", off)
    with pytest.raises(UsageError, match="computes something else"):
        adapted()
    assert {found for found, *_ in calls} == {dtype}
    assert [queries == keys for _, queries, keys in calls] == [True, True, False]


def bits(dtype):
    return torch.finfo(dtype).bits


def test_a_dry_run_counts_no_mask_on_a_gpu_unless_kernels_are_to_be_plain(folder):
    def maskless(device, **options):
        return Plan(TorchTrainer.Config(**options), measure(folder), frozenset(), device).computation.maskless

    assert maskless("cuda")
    assert maskless("cpu")
    assert not maskless("cuda", kernels="plain")
    assert not maskless("mps")  # where `flex` is not tried


def test_the_benchmark_for_gpus_runs():
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--small", "--repeats", "1"]
    done = subprocess.run([*command, "--recompute"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line[1] for line in lines[2:]] == ["trie, fast", "trie, plain", "padded"]
    assert all(line[2].endswith(" s") for line in lines[2:])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_compiled_forward_pass_equals_the_plain_way_on_the_cpu():
    torch._dynamo.reset()
    flex.compiled.cache_clear()
    with torch.no_grad():
        for seed, length in enumerate((300, 128)):
            trie = random_trie(seed, length, ids=2)
            for reads in (None, some_of(trie)):
                tensors = [torch.randn(1, n, len(trie), 16) for n in (6, 2, 2)]
                found, exact = (way(*tensors, trie, reads, 0.3) for way in (through_flex, plainly))
                torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


# Where there is a GPU


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(
    ("heads", "width"), [((14, 2), 64), ((12, 2), 128), ((16, 2), 128), ((4, 4), 80), ((3, 1), 16)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float32, 1e-3)])
def test_the_compiled_kernel_equals_the_plain_way(heads, width, dtype, tolerance):
    for seed, length in enumerate((2000, 700, 128)):
        trie = random_trie(seed, length, ids=2)
        for reads in (None, some_of(trie)):
            ours, plain = (
                results(way, trie, heads, dtype, reads, torch.device("cuda"), width, width**-0.5)
                for way in (through_flex, plainly)
            )
            for found, exact in zip(ours, plain, strict=True):
                assert float((found - exact).norm() / exact.norm()) < tolerance


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("options", [{"dtype": "float32"}, {}, {"gradient_checkpointing": True}])
def test_an_update_on_a_gpu_is_the_same_through_the_compiled_kernel(folder, monkeypatch, options, caplog):
    monkeypatch.setattr(flex, "FEWEST", 0)
    fast, plain = update(folder, "cuda", **options), update(folder, "cuda", kernels="plain", **options)
    assert not words(caplog)
    # Not the weights: where a gradient is 0 but for rounding, AdamW makes a whole step of it.
    assert_same_gradient(fast, plain, 1e-3 if "dtype" in options else 0.1)

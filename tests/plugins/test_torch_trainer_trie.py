"""The trie, attention over it, and what a micro-batch is made of."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from agentrl import AgentRLError, Group, Segment, Span, Task, Trajectory
from agentrl_torch import blocks, micro_batch
from agentrl_torch.attention import plain_attention
from agentrl_torch.flash import flash_attention, supports
from agentrl_torch.kernels import accelerate
from agentrl_torch.layout import lay_out
from agentrl_torch.trie import Trie, build, count_unique

torch.set_num_threads(1)

sequences_of_few_ids = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8)


def arrays(sequences):
    return [np.array(ids, np.int32) for ids in sequences]


def visible(trie: Trie, slot: int) -> set[int]:
    """Return what a slot may attend to, by the rule of the nodes."""
    seen: set[int] = set()
    for node in trie.nodes:
        if node.start <= slot < node.stop:
            seen |= set(range(node.start, slot + 1))
        elif node.stop <= slot < node.subtree_stop:
            seen |= set(range(node.start, node.stop))
    return seen


@given(sequences_of_few_ids)
def test_every_prefix_has_exactly_one_slot(sequences):
    trie = build(arrays(sequences))
    prefixes = {tuple(ids[:stop]) for ids in sequences for stop in range(1, len(ids) + 1)}
    assert len(trie) == len(prefixes) == count_unique(arrays(sequences))
    for ids, slots in zip(sequences, trie.slots, strict=True):
        assert trie.token_ids_T[slots].tolist() == ids
        assert trie.positions_T[slots].tolist() == list(range(len(ids)))


@given(sequences_of_few_ids)
def test_a_slot_sees_its_ancestors_and_itself(sequences):
    trie = build(arrays(sequences))
    for slots in trie.slots:
        for depth, slot in enumerate(slots.tolist()):
            assert visible(trie, slot) == set(slots[: depth + 1].tolist())


@given(sequences_of_few_ids)
def test_nodes_cover_the_slots_once_and_know_their_parents(sequences):
    trie = build(arrays(sequences))
    assert [slot for node in trie.nodes for slot in range(node.start, node.stop)] == list(range(len(trie)))
    for node in trie.nodes:
        if node.parent >= 0:
            parent = trie.nodes[node.parent]
            assert parent.stop <= node.start < node.subtree_stop <= parent.subtree_stop


def test_a_sequence_that_extends_another_makes_no_branch():
    trie = build(arrays([[1, 2, 3], [1, 2, 3, 4, 5], [1, 2]]))
    assert [(node.start, node.stop) for node in trie.nodes] == [(0, 5)]


def counted(cover_blocks, queries: int, slots: int) -> np.ndarray:
    """Return how often each query meets each slot, and check that the diagonal comes first."""
    counts = np.zeros((queries, slots), int)
    for block in cover_blocks:
        shape = counts[block.queries, block.keys].shape
        counts[block.queries, block.keys] += np.tri(*shape, dtype=int) if block.causal else 1
        if not block.causal:
            assert counts[block.queries].any(axis=1).all()
    return counts


@given(sequences_of_few_ids, st.data())
def test_the_blocks_cover_what_a_query_sees_exactly_once(sequences, data):
    trie = build(arrays(sequences))
    expected = np.zeros((len(trie), len(trie)), int)
    for slot in range(len(trie)):
        expected[slot, sorted(visible(trie, slot))] = 1
    reads = np.array(sorted(data.draw(st.sets(st.integers(0, len(trie) - 1), min_size=1))))
    with patch.multiple(blocks, FORWARD_DIAGONAL=3, BACKWARD_DIAGONAL=1):
        covers = blocks.cover(lay_out(trie, reads))
    for cover in (covers.every.forward, covers.every.backward):
        assert (counted(cover, len(trie), len(trie)) == expected).all()
    assert (counted(covers.last.forward, len(reads), len(trie)) == expected[reads]).all()


def test_a_layout_makes_a_thing_but_once_and_makes_another_for_other_arguments():
    layout, made = lay_out(build(arrays([[1, 2]]))), []

    def make(layout, *arguments):
        made.append(arguments)
        return len(made)

    assert [layout.once(make, "a"), layout.once(make, "b"), layout.once(make, "a")] == [1, 2, 1]
    assert made == [("a",), ("b",)]


def plain(query, key, value, trie, scale):
    return plain_attention(query, key, value, trie.nodes, scale)


def flash(query, key, value, trie, scale):
    return flash_attention(query, key, value, blocks.cover(lay_out(trie)).every, scale)


def attend(function, heads, key_heads, dtype, trie):
    """Return the output and the gradients of one attention over `trie`."""
    generator = torch.Generator().manual_seed(0)
    widths = (heads, key_heads, key_heads)
    draw = [torch.randn(1, len(trie), n, 8, dtype=dtype, generator=generator) for n in widths]
    query, key, value = (x.transpose(1, 2).requires_grad_() for x in draw)
    out = function(query, key, value, trie, 0.3)
    weights = torch.randn(out.shape, dtype=dtype, generator=generator)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), (query, key, value))]


@settings(max_examples=40, deadline=None)
@given(sequences_of_few_ids, st.sampled_from([(2, 2), (4, 2), (4, 1)]))
def test_flash_attention_equals_the_plain_path_forward_and_backward(sequences, heads):
    trie = build(arrays(sequences))
    fast, exact = (attend(way, *heads, torch.float64, trie) for way in (flash, plain))
    torch.testing.assert_close(fast, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.2)]
)
def test_flash_attention_holds_over_long_nodes_in_all_types(dtype, tolerance):
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 50, 600)
    trie = build([np.concatenate([prompt, rng.integers(0, 50, 90 + i)]).astype(np.int32) for i in range(4)])
    fast, exact = (attend(way, 4, 2, dtype, trie) for way in (flash, plain))
    torch.testing.assert_close(fast, exact, rtol=tolerance, atol=tolerance)


def test_flash_attention_declines_heads_of_different_width():
    query, key, value = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 4)
    assert supports(query, key, key)
    assert not supports(query, key, value)
    assert not supports(query.half(), key.half(), key.half())


class Doubled(Qwen2RMSNorm):
    """A norm of another formula, whose name looks usual: DoubledRMSNorm."""

    def forward(self, hidden):
        return 2 * super().forward(hidden)


Doubled.__name__ = "DoubledRMSNorm"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Linear(16, 24),
        lambda: torch.nn.Linear(16, 24, bias=False),
        lambda: Qwen2RMSNorm(16),
        lambda: Doubled(16),
    ],
    ids=["dense", "without-bias", "norm", "another-norm"],
)
@pytest.mark.parametrize("rows", [3, 50])
def test_accelerated_modules_compute_the_same(make, rows):
    torch.manual_seed(0)
    module = make()
    with torch.no_grad():
        module.weight.normal_()
    inputs = torch.randn(2, rows, 16, requires_grad=True)
    results = []
    for _ in range(2):
        out = module(inputs)
        gradients = torch.autograd.grad(out.pow(3).sum(), [inputs, *module.parameters()])
        results.append([out.detach(), *gradients])
        accelerate(module)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-3)
    assert ("forward" in vars(module)) == (type(module) is not Doubled)


def trajectory(task, prompt, turns):
    """Return a trajectory with the sampled tokens `turns[k]`, and the id 9 given between them."""
    ids, spans = list(prompt), []
    for turn, sampled in enumerate(turns):
        spans.append(Span(len(ids), [-1.0] * len(sampled), turn))
        ids += [*sampled, 9]
    return Trajectory(Task(task), segments=[Segment(ids, spans)])


def group(task, prompt, members):
    return Group(Task(task), [trajectory(task, prompt, turns) for turns in members])


def test_a_micro_batch_finds_the_logits_of_each_sampled_token():
    rows = micro_batch.encode([group("a", [1, 2], [[[3, 4], [5]], [[3, 6]], [[3, 4], [5]]])])
    micro = micro_batch.pack(rows)
    assert micro.trie.token_ids_T.tolist() == [1, 2, 3, 4, 9]  # nothing after the last source
    assert micro.slots_R.tolist() == [1, 2, 4]
    slot_N = micro.slots_R[micro.row_U][micro.pair_N].tolist()
    token_N = micro.target_U[micro.pair_N].tolist()
    assert list(zip(slot_N, token_N, strict=True)) == [
        *[(1, 3), (2, 4), (4, 5)],
        *[(1, 3), (2, 6)],
        *[(1, 3), (2, 4), (4, 5)],
    ]
    assert micro.turn_N.tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    assert micro.trajectory_N.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_slot_that_was_sampled_from_at_two_temperatures_has_logits_for_each():
    played = group("a", [1, 2], [[[3, 4]], [[3, 4]], [[3, 5]]])
    played.trajectories[1].segments[0].spans[0].temperature = 0.5
    micro = micro_batch.pack(micro_batch.encode([played]))
    assert micro.slots_R.tolist() == [1, 1, 2, 2]
    assert micro.layout.reads.tolist() == [1, 2]
    assert micro.temperature_R.tolist() == [0.5, 1, 0.5, 1]
    assert micro.temperature_R[micro.row_U][micro.pair_N].tolist() == [1, 1, 0.5, 0.5, 1, 1]
    even = micro_batch.pack(micro_batch.encode([group("a", [1, 2], [[[3, 4]]])]))
    assert even.temperature_R is None


def test_a_turn_that_two_versions_have_sampled_is_computed_as_one_and_audited_in_part():
    whole = trajectory("a", [1, 2], [[3, 4, 5]])
    parts = trajectory("a", [1, 2], [[3, 4, 5]])
    (segment,) = parts.segments
    segment.spans = [Span(2, [-1.0], 0, version=6), Span(3, [-1.0, -1.0], 0, version=7)]
    row, split = micro_batch.encode([Group(whole.task, [whole]), Group(parts.task, [parts])], 7)
    for name in ("sequences", "sources", "targets_N", "turns_N"):
        assert np.array_equal(getattr(row, name), getattr(split, name))
    assert split.audited_N.tolist() == [False, True, True]


def test_the_budget_keeps_groups_together_and_never_splits_a_trajectory():
    groups = [group(name, [seed] * 10, [[[n] * 5] for n in range(3)]) for seed, name in enumerate("ab")]
    rows = micro_batch.encode(groups)  # 10 shared + 3 * 4 of their own = 22 unique tokens a group

    def tasks(budget):
        return [[row.task for row in micro.rows] for micro in micro_batch.pack_all(rows, budget)]

    assert tasks(44) == [["a", "a", "a", "b", "b", "b"]]
    assert tasks(43) == [["a", "a", "a"], ["b", "b", "b"]]
    assert tasks(18) == [["a", "a"], ["a"], ["b", "b"], ["b"]]
    assert tasks(1) == [["a"], ["a"], ["a"], ["b"], ["b"], ["b"]]
    with patch.object(micro_batch, "HANDY", 30):
        assert tasks(44) == [["a", "a", "a"], ["b", "b", "b"]]
    with patch.object(micro_batch, "HANDY", 10):
        assert tasks(22) == [["a", "a", "a"], ["b", "b", "b"]]


def test_minibatches_hold_whole_groups_if_there_are_enough():
    rows = micro_batch.encode([group(name, [1], [[[2]], [[3]]]) for name in "abc"])
    assert [[row.task for row in part] for part in micro_batch.split(rows, 2)] == [
        ["a"] * 2,
        ["b"] * 2 + ["c"] * 2,
    ]
    assert [len(part) for part in micro_batch.split(rows, 4)] == [1, 2, 1, 2]
    assert len(micro_batch.split(rows, 100)) == 6


@pytest.mark.parametrize(("start", "count"), [(0, 1), (2, 3)])
def test_spans_that_do_not_fit_their_segment_are_refused(start, count):
    bad = Trajectory(Task("t7"), segments=[Segment([1, 2, 3], [Span(start, [-1.0] * count, 0)])])
    with pytest.raises(AgentRLError, match="task 't7': a sampled span covers"):
        micro_batch.encode([Group(bad.task, [bad])])

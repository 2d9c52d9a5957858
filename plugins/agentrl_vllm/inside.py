"""What vLLM's worker is made to do that vLLM does not do by itself; the functions run inside it.

Log-probabilities: vLLM reports them either before temperature and top-p or after both. What is trained is the
distribution between the two, as `Completion` says: top-p is no part of the policy.

Tied heads: on the CPU vLLM lays out the weights of an output layer anew for its kernel. When weights are
loaded again it leaves out a head that is tied to the embedding, which would go on with the old ones.

Numbers that are none: what a diverged model has written into a block of the cache would reach whoever gets
the block next, since a weight of zero times NaN is NaN.
"""

from typing import Any


def renew_tied_heads(worker: Any) -> None:
    """Lay out again the heads that have their weights from the embedding."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    layers = list(worker.model_runner.get_model().modules())
    heads = [layer for layer in layers if isinstance(layer, ParallelLMHead)]
    others = [layer for layer in layers if isinstance(layer, VocabParallelEmbedding) and layer not in heads]
    embedded = {layer.weight.data_ptr() for layer in others}
    for head in heads:
        if head.weight.data_ptr() in embedded:
            head.quant_method.process_weights_after_loading(head)


def scrub_cache(worker: Any) -> None:
    """Overwrite all cached keys and values."""
    for cache in worker.model_runner.kv_caches:
        cache.zero_()


def report_without_top_p(worker: Any) -> None:
    """Wrap the worker's sampler."""
    sampler = worker.model_runner.sampler
    if hasattr(sampler, "topk_topp_sampler"):
        _wrap(sampler.topk_topp_sampler)
    else:
        _wrap_second(sampler)


def _wrap(inner: Any) -> None:
    """Wrap the last step of the sampler of vLLM's first model runner, which is that of the CPU."""
    draw = inner.forward

    def forward(logits: Any, generators: Any, k: Any, p: Any) -> Any:
        if k is None and p is None:
            return draw(logits, generators, k, p)
        before = logits.log_softmax(dim=-1)  # the step overwrites its logits
        return draw(logits, generators, k, p)[0], before

    inner.forward = forward


def _wrap_second(sampler: Any) -> None:
    """Wrap the last step of the sampler of vLLM's second model runner, which is that of GPUs."""
    draw = sampler._sample_random

    def sample(logits: Any, mapping: Any, rows: Any, pos: Any, k: Any, p: Any, fused: Any) -> Any:
        if k is None and p is None:
            return draw(logits, mapping, rows, pos, k, p, fused)
        before = logits.clone()
        return draw(logits, mapping, rows, pos, k, p, fused)[0], before

    sampler._sample_random = sample

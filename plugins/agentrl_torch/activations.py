"""How much memory the activations of a micro-batch take, counted from what autograd keeps of each layer.

Counted is a decoder of the usual kind: RMS norms, rotary attention, a gated MLP. Others come close. What each
layer keeps for the backward pass, in numbers a token (d width, q and k of all query and key heads, f inner
width of the MLP):

    norms        their inputs and outputs, 2 d each; normalised inputs as well where no fused one is used
    projections  under autocast a copy of its input for each: 3 d and 2 d
    attention    queries, keys, values and output; the plain way, which a GPU takes where `flex` cannot be
                 compiled, repeats keys for all query heads, and has a mask, a number for each token that a
                 token may see
    MLP          gate, gate after its activation, up, and their product: 4 f

On top comes the most of: the logits of a piece (`forward.LOGITS`) with their gradient, and what the backward
pass of a layer needs meanwhile.
"""

from dataclasses import dataclass

from agentrl_torch.forward import LOGITS
from agentrl_torch.sizes import Sizes

# Bytes a number of what is computed in float32 whatever the matrix products are computed in.
_WIDE = 4


@dataclass(frozen=True, slots=True)
class Computation:
    """How an update computes.

    Attributes:
        product: bytes a number in matrix products.
        stream: bytes a number of what goes from layer to layer.
        maskless: whether attention needs no mask that is as long as an episode.
        fused: whether norms keep their input and output only.
        adapter: whether an adapter is trained, and the rest is frozen.
        recompute: whether the activations of a layer are computed again in the backward pass.
    """

    product: int
    stream: int
    maskless: bool
    fused: bool
    adapter: bool
    recompute: bool


def of_micro_batch(sizes: Sizes, how: Computation, tokens: int, longest: int) -> int:
    """Return the bytes of activations of `tokens` unique tokens, in episodes of up to `longest`."""
    layer = tokens * _layer(sizes, how, longest)
    passing = tokens * (3 * how.product * sizes.inner + 4 * how.stream * sizes.width)
    ends = 4 * tokens * how.stream * sizes.width
    top = _logits(sizes, how, tokens)
    if how.recompute:
        return sizes.layers * tokens * how.stream * sizes.width + ends + max(top, layer + passing)
    return sizes.layers * layer + ends + max(top, passing)


def _layer(sizes: Sizes, how: Computation, longest: int) -> int:
    """Return the bytes a token that a layer keeps."""
    narrow = how.product < _WIDE
    width, query, keys = sizes.width, sizes.query, sizes.keys
    inputs = (5 if narrow else 2) * how.product * width
    norms = 2 * how.stream * width if how.fused else 2 * max(_WIDE, how.stream) * width
    if not how.fused and not (how.adapter and narrow):
        norms *= 2
    attention = how.product * (2 * query + 2 * keys if how.maskless else 5 * query + longest)
    again = how.product * query if how.adapter and narrow else 0
    return inputs + norms + attention + again + _WIDE * sizes.heads + 4 * how.product * sizes.inner


def _logits(sizes: Sizes, how: Computation, tokens: int) -> int:
    """Return the bytes of a piece of logits with what is computed from them, and of the head's gradient."""
    piece = min(tokens * sizes.vocabulary, max(LOGITS, sizes.vocabulary))
    gradient = 0 if how.adapter else max(_WIDE, how.product) * sizes.vocabulary * sizes.width
    return piece * (how.product + 3 * max(_WIDE, how.product)) + gradient

"""Faster ways to the same numbers on the CPU: dense layers through oneDNN, and RMS norms in one piece.

PyTorch computes float32 products on the CPU with MKL, which takes slow paths on processors that are not
Intel's: on an AVX-512 EPYC it is 2.3 times slower than oneDNN, which PyTorch ships as well. And the gradient
of an RMS norm that is written out in tensor operations takes three times as many passes over memory as it
needs. `accelerate` leaves modules and weights as they are and changes only how they compute, in full float32.

Shapes: N rows, I input features, O output features, D width of a norm.
"""

import copy
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

# Below this many rows (single tokens being generated) MKL's smaller overhead wins.
FEWEST_ROWS = 64
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def accelerate(model: nn.Module) -> None:
    """Let the dense layers and RMS norms of `model` take the faster ways, on the CPU and in float32."""
    for module in model.modules():
        if type(module) is nn.Linear and _HAS_ONEDNN:
            module.forward = MethodType(_dense, module)  # type: ignore[method-assign]
        elif type(module).__name__.endswith("RMSNorm") and _is_usual(module):
            module.forward = MethodType(_norm, module)


def _plain_float32(*tensors: Tensor) -> bool:
    usual = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)
    return usual and not torch.is_autocast_enabled("cpu")


# Dense layers


def dense(rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return rows weight^T + bias, (N, O), the faster way; no gradients."""
    if rows_NI.shape[0] >= FEWEST_ROWS and _HAS_ONEDNN and _plain_float32(rows_NI, weight_OI):
        return _multiply(rows_NI, weight_OI, bias_O)
    return nn.functional.linear(rows_NI, weight_OI, bias_O)


def _dense(module: nn.Linear, inputs: Tensor) -> Tensor:
    rows_NI = inputs.flatten(0, -2)
    if len(rows_NI) < FEWEST_ROWS or not _plain_float32(rows_NI, module.weight):
        return nn.Linear.forward(module, inputs)
    out_NO: Tensor = _Dense.apply(rows_NI, module.weight, module.bias)
    return out_NO.view(*inputs.shape[:-1], -1)


def _multiply(rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return rows weight^T + bias, (N, O); any strides will do."""
    multiply = torch.ops.mkldnn._linear_pointwise.default
    product_NO: Tensor = multiply(rows_NI, weight_OI, bias_O, "none", [], "")
    return product_NO


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows_NI, weight_OI)
        return _multiply(rows_NI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_NO,) = grads
        rows_NI, weight_OI = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        grad_rows_NI = _multiply(grad_NO, weight_OI.t()) if needs_rows else None
        grad_weight_OI = _multiply(grad_NO.t(), rows_NI.t()) if needs_weight else None
        return grad_rows_NI, grad_weight_OI, grad_NO.sum(0) if needs_bias else None


# RMS norms: y = w x / rms(x), rms(x)^2 = mean(x^2) + epsilon (Zhang and Sennrich 2019, arXiv:1910.07467)


@torch.no_grad()
def _is_usual(module: nn.Module) -> bool:
    """Return whether `module` computes that formula; some families add 1 to the weight, say."""
    weight_D = getattr(module, "weight", None)
    if not isinstance(weight_D, Tensor) or not hasattr(module, "variance_epsilon"):
        return False
    # Its weights may still be narrower than they will be when it computes.
    wide = copy.deepcopy(module).to("cpu", torch.float32)
    probe_ND = torch.linspace(-2, 3, 4 * len(weight_D)).view(4, -1)
    return torch.allclose(wide(probe_ND), _norm(wide, probe_ND), rtol=1e-3, atol=1e-5)


def _norm(module: Any, inputs: Tensor) -> Tensor:
    if not _plain_float32(inputs, module.weight):
        other: Tensor = type(module).forward(module, inputs)
        return other
    out: Tensor = _Norm.apply(inputs, module.weight, module.variance_epsilon)
    return out


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        scale = inputs.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, weight_D, scale)
        return torch.mul(inputs, scale).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight_D, scale = ctx.saved_tensors
        product_ND = (grads[0] * inputs).flatten(0, -2)
        grad_weight_D = scale.view(-1) @ product_ND if ctx.needs_input_grad[1] else None
        # Through the root: -x s^3 mean(g w x), one number a row.
        pull = (product_ND @ weight_D).view(scale.shape).mul_(scale**3).div_(-len(weight_D))
        grad_inputs = (grads[0] * weight_D).mul_(scale).addcmul_(inputs, pull)
        return grad_inputs, grad_weight_D, None

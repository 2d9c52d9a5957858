"""Dense layers through oneDNN on the CPU, in float32 and exactly as precise.

PyTorch computes float32 products on the CPU with MKL, which takes slow paths on processors that are not
Intel's: on an AVX-512 EPYC it is 2.3 times slower than oneDNN, which PyTorch ships as well. `accelerate`
leaves the model's modules and weights as they are and changes only how its dense layers multiply.

Shapes: N rows, I input features, O output features.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

# Below this many rows (single tokens being generated) MKL's smaller overhead wins.
FEWEST_ROWS = 64


def accelerate(model: nn.Module) -> None:
    """Let the dense layers of `model` use oneDNN for float32 on the CPU, where PyTorch has it."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Linear, inputs: Tensor) -> Tensor:
    weight_OI = module.weight
    rows_NI = inputs.flatten(0, -2)
    if not _suits(rows_NI, weight_OI):
        plain: Tensor = nn.functional.linear(inputs, weight_OI, module.bias)
        return plain
    out_NO: Tensor = _Linear.apply(rows_NI, weight_OI, module.bias)
    return out_NO.unflatten(0, inputs.shape[:-1])


def _suits(rows_NI: Tensor, weight_OI: Tensor) -> bool:
    cpu = rows_NI.device.type == weight_OI.device.type == "cpu"
    plain = rows_NI.dtype == weight_OI.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return cpu and plain and len(rows_NI) >= FEWEST_ROWS


def _multiply(rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return rows weight^T + bias, (N, O); any strides will do."""
    product_NO: Tensor = torch.ops.mkldnn._linear_pointwise.default(
        rows_NI, weight_OI, bias_O, "none", [], ""
    )
    return product_NO


class _Linear(torch.autograd.Function):
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

"""Linear layers in bf16 whose weights lie as the processor's kernels read them.

Else every call lays them out anew, which takes time if there are few rows. The results are the same.
"""

import torch


class Linear(torch.nn.Module):
    """A linear layer that was laid out."""

    def __init__(self, layer: torch.nn.Linear):
        """Take a layer's weights."""
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight)
        self.bias = layer.bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(values, self.weight, self.bias, "none", [], "")


def replace_linear(module: torch.nn.Module) -> None:
    """Lay out all linear layers in a module."""
    for name, child in module.named_children():
        if type(child) is torch.nn.Linear:
            setattr(module, name, Linear(child))
        else:
            replace_linear(child)

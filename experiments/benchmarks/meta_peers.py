"""The MAML step in PyTorch, three ways, as the peers of ``meta_step``: torch.func, higher, and autograd.

All compute the same network, loss and Adam update as ours.
"""

from collections.abc import Callable
from typing import Any

import higher
import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from experiments.benchmarks import torch_nets
from metarep_jax.types import Episode

Batch = tuple[torch.Tensor, ...]  # support images and labels, query images and labels, tasks leading
Gradient = Callable[[], torch.Tensor]  # fills .grad of the parameters, returns the mean query loss


class Net(nn.Module):
    """Conv4 with stride 2, batch statistics, global mean, and a linear head."""

    def __init__(self, channels: int, width: int, way: int):
        super().__init__()
        self.encoder = torch_nets.Conv4(channels, width, running=False)
        self.head = nn.Linear(width, way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [n, c, h, w] to logits [n, way]."""
        return self.head(self.encoder(x).mean((2, 3)))


def net_of(params: Any, channels: int, width: int, way: int) -> Net:
    """The PyTorch network with our parameters."""
    net = Net(channels, width, way)
    encoder, head = torch_nets.conv4_arrays(params["encoder"]), torch_nets.dense_arrays(params["head"])
    torch_nets.set_parameters(net, torch_nets.within("encoder", encoder) | torch_nets.within("head", head))
    return net


def kernel_gradients(net: Net) -> list[np.ndarray]:
    """The gradients of the convolutions' kernels, laid out as ours [kh, kw, in, out]."""
    found = []
    for conv in net.encoder.convs:
        grad = conv.get_parameter("weight").grad
        assert grad is not None
        found.append(grad.numpy().transpose(2, 3, 1, 0)[::-1, ::-1])
    return found


def torch_batch(episodes: Episode) -> Batch:
    """Our episodes as PyTorch's tensors, images turned by 180° and channels first."""
    images = torch_nets.channels_first

    def labels(y: Any) -> torch.Tensor:
        return torch.tensor(np.array(y), dtype=torch.int64)

    support, query = episodes
    return images(support.inputs), labels(support.label), images(query.inputs), labels(query.label)


def peers(net: Net, batch: Batch, *, inner_lr: float, inner_steps: int) -> dict[str, Gradient]:
    """The meta-gradient by each peer's way, over ``batch``."""
    tasks = batch[0].shape[0]
    params: dict[str, torch.Tensor] = dict(net.named_parameters())

    def adapted_loss(params: dict, xs: torch.Tensor, ys: torch.Tensor, xq: torch.Tensor, yq: torch.Tensor) -> Any:
        def support_loss(fast: dict) -> torch.Tensor:
            return functional.cross_entropy(functional_call(net, fast, (xs,)), ys)

        fast = params
        for _ in range(inner_steps):
            grads, _ = grad_and_value(support_loss)(fast)
            fast = {name: value - inner_lr * grads[name] for name, value in fast.items()}
        return functional.cross_entropy(functional_call(net, fast, (xq,)), yq)

    def torch_func() -> torch.Tensor:
        grads, losses = vmap(grad_and_value(adapted_loss), (None, 0, 0, 0, 0), randomness="error")(
            {name: value.detach() for name, value in params.items()}, *batch
        )
        for name, value in params.items():
            value.grad = grads[name].mean(0)
        return losses.mean()

    def by_task(task_loss: Callable[..., torch.Tensor]) -> Gradient:
        def gradient() -> torch.Tensor:
            net.zero_grad()
            total = torch.zeros(())
            for part in zip(*batch, strict=True):
                loss = task_loss(*part) / tasks
                loss.backward()
                total += loss.detach()
            return total

        return gradient

    def autograd_loss(xs: torch.Tensor, ys: torch.Tensor, xq: torch.Tensor, yq: torch.Tensor) -> torch.Tensor:
        fast = params
        for _ in range(inner_steps):
            loss = functional.cross_entropy(functional_call(net, fast, (xs,)), ys)
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {name: value - inner_lr * g for (name, value), g in zip(fast.items(), grads, strict=True)}
        return functional.cross_entropy(functional_call(net, fast, (xq,)), yq)

    inner = torch.optim.SGD(net.parameters(), lr=inner_lr)

    def higher_loss(xs: torch.Tensor, ys: torch.Tensor, xq: torch.Tensor, yq: torch.Tensor) -> torch.Tensor:
        with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (fast, step):
            for _ in range(inner_steps):
                step.step(functional.cross_entropy(fast(xs), ys))
            return functional.cross_entropy(fast(xq), yq)

    return {"torch_func": torch_func, "higher": by_task(higher_loss), "torch_autograd": by_task(autograd_loss)}

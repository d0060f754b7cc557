"""Local response normalization (Krizhevsky et al. 2012, section 3.3) and the four conventions it comes in.

The same four letters mean different things: the paper and TensorFlow multiply the plain sum of squares by
alpha, Caffe and PyTorch divide alpha by the window first; TensorFlow counts a radius, the others a window.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import nn

from vgglab import _checks as checks
from vgglab._checks import Index, Maps, NonNegative, checked


def _odd(name: str, value: int) -> int:
    window = checks.integer(name, value, at_least=1)
    if window % 2 == 0:
        raise ValueError(f"{name} must be odd, so that the window is centred on its channel, not {window}")
    return window


Window = Annotated[int, _odd]


@checked
def local_response_norm(
    x: Maps, n: Window = 5, k: NonNegative = 2.0, alpha: NonNegative = 1e-4, beta: NonNegative = 0.75
) -> Maps:
    """Return x / (k + alpha * sum of squares over n neighbouring channels) ** beta, as the paper writes it.

    x is (N, C, H, W) in floating point, n odd; channels beyond the first and the last count as zero. With k = 0 a
    unit whose whole window is zero gives 0 / 0 = NaN, as it does in every framework. Source: section 3.3.
    """
    channels = x.shape[1]
    half = min(n // 2, channels)
    squares = F.pad(x**2, (0, 0, 0, 0, half, half))
    window_sum = sum(squares[:, offset : offset + channels] for offset in range(2 * half + 1))
    return x / (k + alpha * window_sum) ** beta


@checked
def from_paper(
    n: Window = 5, k: NonNegative = 2.0, alpha: NonNegative = 1e-4, beta: NonNegative = 0.75
) -> nn.LocalResponseNorm:
    """Return the nn.LocalResponseNorm equal to the paper's layer: PyTorch divides alpha by n, so n * alpha."""
    return nn.LocalResponseNorm(n, alpha=n * alpha, beta=beta, k=k)


@checked
def from_tensorflow(
    depth_radius: Index = 5, bias: NonNegative = 1.0, alpha: NonNegative = 1.0, beta: NonNegative = 0.5
) -> nn.LocalResponseNorm:
    """Return the nn.LocalResponseNorm equal to tf.nn.local_response_normalization, the paper's with another window."""
    window = 2 * depth_radius + 1
    return nn.LocalResponseNorm(window, alpha=window * alpha, beta=beta, k=bias)


@checked
def from_caffe(
    local_size: Window = 5, alpha: NonNegative = 1.0, beta: NonNegative = 0.75, k: NonNegative = 1.0
) -> nn.LocalResponseNorm:
    """Return the nn.LocalResponseNorm equal to Caffe's LRN layer across channels: the same convention."""
    return nn.LocalResponseNorm(local_size, alpha=alpha, beta=beta, k=k)

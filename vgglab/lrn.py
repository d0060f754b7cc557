"""Local response normalization (Krizhevsky et al. 2012, section 3.3) and the four conventions it comes in.

The same four letters mean different things: the paper and TensorFlow multiply the plain sum of squares by
alpha, Caffe and PyTorch divide alpha by the window first; TensorFlow counts a radius, the others a window.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vgglab import _checks as checks

LARGEST = 1e6  # constant; beyond it float32 soon overflows


def local_response_norm(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Return x / (k + alpha * sum of squares over n neighbouring channels) ** beta, as the paper writes it.

    x is (N, C, H, W) in floating point, n odd; channels beyond the first and the last count as zero.
    With k = 0 a unit whose whole window is zero gives 0 / 0 = NaN, as it does in every framework.
    Raises ValueError or TypeError for other shapes, types or windows. Source: section 3.3.
    """
    n, k, alpha, beta = _settings(n, k, alpha, beta)
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor (N, C, H, W), not {getattr(x, 'dtype', type(x))}")
    if x.ndim != 4:
        raise ValueError(f"x must have the four dimensions (N, C, H, W), not the shape {tuple(x.shape)}")
    channels = x.shape[1]
    half = min(n // 2, channels)
    squares = F.pad(x**2, (0, 0, 0, 0, half, half))
    window_sum = sum(squares[:, offset : offset + channels] for offset in range(2 * half + 1))
    return x / (k + alpha * window_sum) ** beta


def from_paper(n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Return the nn.LocalResponseNorm equal to the paper's layer: PyTorch divides alpha by n, so n * alpha."""
    n, k, alpha, beta = _settings(n, k, alpha, beta)
    return nn.LocalResponseNorm(n, alpha=n * alpha, beta=beta, k=k)


def from_tensorflow(depth_radius=5, bias=1.0, alpha=1.0, beta=0.5):
    """Return the nn.LocalResponseNorm equal to tf.nn.local_response_normalization: window 2 * depth_radius + 1."""
    depth_radius = checks.integer("depth_radius", depth_radius, 0)
    bias = checks.number("bias", bias, at_least=0, at_most=LARGEST)
    return from_paper(2 * depth_radius + 1, bias, alpha, beta)


def from_caffe(local_size=5, alpha=1.0, beta=0.75, k=1.0):
    """Return the nn.LocalResponseNorm equal to Caffe's LRN layer across channels: the same convention."""
    n, k, alpha, beta = _settings(local_size, k, alpha, beta, window="local_size")
    return nn.LocalResponseNorm(n, alpha=alpha, beta=beta, k=k)


def _settings(n, k, alpha, beta, window="n"):
    n = checks.integer(window, n, 1)
    if n % 2 == 0:
        raise ValueError(f"{window} must be odd, so that the window is centred on its channel, not {n}")
    return (
        n,
        checks.number("k", k, at_least=0, at_most=LARGEST),
        checks.number("alpha", alpha, at_least=0, at_most=LARGEST),
        checks.number("beta", beta, at_least=0, at_most=LARGEST),
    )

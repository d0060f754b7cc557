import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vgglab.lrn import from_caffe, from_paper, from_tensorflow, local_response_norm

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
WINDOWS = st.sampled_from([1, 3, 5, 7, 9])
K = st.floats(0.1, 4)
ALPHA = st.floats(0, 2)
BETA = st.floats(0, 2)
slowly = settings(deadline=None, max_examples=60)


@st.composite
def images(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-3, 1.0, 50.0]))
    return scale * torch.randn(draw(SHAPES), generator=generator, dtype=torch.float64)


def by_loops(x, n, k, alpha, beta):
    """Section 3.3 of the AlexNet paper, index by index: j from max(0, i - n/2) to min(N - 1, i + n/2)."""
    b = torch.empty_like(x)
    images, channels, height, width = x.shape
    for image in range(images):
        for i in range(channels):
            for row in range(height):
                for column in range(width):
                    total = 0.0
                    for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
                        total += x[image, j, row, column].item() ** 2
                    b[image, i, row, column] = x[image, i, row, column].item() / (k + alpha * total) ** beta
    return b


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=25)
@given(images(), WINDOWS, K, ALPHA, BETA)
def test_agrees_with_the_papers_sum_written_as_loops(x, n, k, alpha, beta):
    close(local_response_norm(x, n, k, alpha, beta), by_loops(x, n, k, alpha, beta))


@slowly
@given(images(), WINDOWS, K, ALPHA, BETA)
def test_from_paper_is_the_equal_torch_layer(x, n, k, alpha, beta):
    layer = from_paper(n, k, alpha, beta)
    assert type(layer) is nn.LocalResponseNorm
    close(layer(x), local_response_norm(x, n, k, alpha, beta))


@slowly
@given(images(), st.integers(0, 4), K, ALPHA, BETA)
def test_from_tensorflow_counts_a_radius_and_leaves_alpha_whole(x, depth_radius, bias, alpha, beta):
    layer = from_tensorflow(depth_radius, bias, alpha, beta)
    close(layer(x), local_response_norm(x, 2 * depth_radius + 1, bias, alpha, beta))


@slowly
@given(images(), WINDOWS, K, ALPHA, BETA)
def test_from_caffe_divides_alpha_by_the_window(x, local_size, k, alpha, beta):
    layer = from_caffe(local_size, alpha, beta, k)
    close(layer(x), local_response_norm(x, local_size, k, alpha / local_size, beta))


@slowly
@given(images(), WINDOWS, K, ALPHA, BETA)
def test_gradients_are_those_of_the_torch_layer(x, n, k, alpha, beta):
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    local_response_norm(ours, n, k, alpha, beta).square().sum().backward()
    from_paper(n, k, alpha, beta)(theirs).square().sum().backward()
    close(ours.grad, theirs.grad)


def test_defaults_are_those_of_each_source():
    def settings_of(layer):
        return layer.size, layer.alpha, layer.beta, layer.k

    assert settings_of(from_paper()) == (5, 5 * 1e-4, 0.75, 2)  # AlexNet: n 5, k 2, alpha 1e-4, beta 0.75
    assert settings_of(from_tensorflow()) == (11, 11.0, 0.5, 1)  # tf.nn: radius 5, bias 1, alpha 1, beta 0.5
    assert settings_of(from_caffe()) == (5, 1.0, 0.75, 1)  # LRNParameter: local_size 5, alpha 1, beta 0.75, k 1


def test_tensorflow_example():  # LRN3
    nhwc = torch.arange(1.0, 33.0, dtype=torch.float64).reshape(2, 2, 2, 4)
    x = nhwc.permute(0, 3, 1, 2)
    layer = from_tensorflow(depth_radius=2, bias=0, alpha=1, beta=1)
    for y in (layer(x), local_response_norm(x, n=5, k=0, alpha=1, beta=1)):
        value = dict(zip(nhwc.flatten().tolist(), y.permute(0, 2, 3, 1).flatten().tolist(), strict=True))
        for number, fraction, printed in [
            (26, 26 / 2814, "0.00923952"),
            (17, 17 / 974, "0.0174538"),
            (20, 20 / 1085, "0.0184332"),
        ]:
            assert value[number] == pytest.approx(fraction, rel=1e-12)
            assert f"{value[number]:.6g}" == printed


def test_passing_the_papers_alpha_to_torch_is_five_times_too_weak():  # LRN2
    x = 40 * torch.rand(2, 8, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    naive = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)
    close(naive(x), local_response_norm(x, alpha=1e-4 / 5))
    assert not torch.allclose(naive(x), local_response_norm(x, alpha=1e-4), rtol=1e-2)


def test_an_even_window_of_torch_leans_to_the_channels_before():
    spike = torch.zeros(1, 9, 1, 1, dtype=torch.float64)
    spike[0, 4] = 1
    touched = (nn.LocalResponseNorm(4, alpha=4, beta=1, k=1)(spike + 1e-6)).flatten() < 0.9e-6
    touched[4] = True
    assert touched.nonzero().flatten().tolist() == [3, 4, 5, 6]  # channel 6 looks two back, channel 2 only one ahead


@pytest.mark.parametrize("converter", [local_response_norm, from_paper, from_caffe])
def test_even_windows_are_refused(converter):
    arguments = (torch.ones(1, 4, 1, 1), 4) if converter is local_response_norm else (4,)
    with pytest.raises(ValueError, match="(n|local_size) must be odd.*not 4"):
        converter(*arguments)


def test_torch_reads_three_dimensions_as_batch_channels_length():
    x = torch.randn(4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = from_paper(alpha=0.5)
    as_image = local_response_norm(x[None], alpha=0.5)[0]
    as_batch_of_lines = local_response_norm(x[..., None], alpha=0.5)[..., 0]
    close(layer(x), as_batch_of_lines)
    assert not torch.allclose(layer(x), as_image)
    with pytest.raises(ValueError, match=r"x must be a float tensor \(N, C, H, W\).*\(4, 6, 5\)"):
        local_response_norm(x)


def test_k_zero_on_zeros_is_nan_everywhere_it_should_be():
    x = torch.zeros(1, 7, 1, 1)
    x[0, 0] = 1
    for y in (local_response_norm(x, n=3, k=0, alpha=1), from_paper(n=3, k=0, alpha=1)(x)):
        assert y.flatten().isnan().tolist() == [False, False, True, True, True, True, True]

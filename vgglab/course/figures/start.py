"""Figures of the data: garments by class, and what a network answers."""

from torch import Tensor

from vgglab.course.figures.style import GREEN, RED, Figure, picture_grid
from vgglab.data import Images

PER_CLASS = 10


def garments(images: Images) -> Figure:
    """One row of pictures for each class, the first ten of it."""
    fig, axes = picture_grid(len(images.classes), PER_CLASS, (PER_CLASS * 0.85 + 1.6, len(images.classes) * 0.75))
    for number, (row, name) in enumerate(zip(axes, images.classes, strict=True)):
        members = images[(images.labels == number).nonzero().flatten()[:PER_CLASS]]
        for axis, picture in zip(row, members.pixels, strict=True):
            axis.imshow(picture[0], cmap="gray", vmin=0, vmax=255)
        row[0].text(-6, 14, f"{number}  {name}", ha="right", va="center", fontsize=13)
    return fig


def answers(images: Images, scores: Tensor) -> Figure:
    """Two rows of the images with the class that scores names, and the true class where that is wrong."""
    columns = (len(images) + 1) // 2
    fig, axes = picture_grid(2, columns, (columns * 2, 5.2))
    for axis, picture, label, answer in zip(axes.flat, images.pixels, images.labels, scores.argmax(1), strict=False):
        axis.imshow(picture[0], cmap="gray", vmin=0, vmax=255)
        right = answer == label
        text = f"{images.classes[answer]} ✓" if right else f"{images.classes[answer]} ✗\n({images.classes[label]})"
        axis.set_title(text, fontsize=12, color=GREEN if right else RED)
    return fig

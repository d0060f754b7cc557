"""A picture that answers a hand: sliders and menus above a figure that follows them."""

import inspect
from collections.abc import Callable
from io import BytesIO
from typing import Any

from ipywidgets import HBox, Image, Layout, VBox, interactive
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vgglab.course.figures.style import Figure


def moving(draw: Callable[..., Figure], **controls: Any) -> VBox:
    """Return a widget with one control for each argument of draw that is named, and under them the picture it draws.

    A control is what ipywidgets.interact takes: (low, high, step) for a slider, a list or dict of choices for a menu,
    or a widget. It starts at the argument's default. draw(**values) is called again at each move and returns a Figure:
    the same one with other bars, lines or images in it where an answer in a tenth of a second matters, since a new
    one costs twice as much. Axis limits must be fixed, and what goes beyond them is cut: the layout is that of the
    first picture.
    """
    defaults = inspect.signature(draw).parameters
    widgets = {name: interactive.widget_from_abbrev(of, defaults[name].default) for name, of in controls.items()}
    picture = Image(format="png", layout=Layout(align_self="flex-start"))

    def answer(_: Any = None) -> None:
        fig = draw(**{name: widget.value for name, widget in widgets.items()})
        png = BytesIO()
        FigureCanvasAgg(fig).print_png(png, pil_kwargs={"compress_level": 1})
        fig.set_layout_engine("none")
        picture.value = png.getvalue()

    for name, widget in widgets.items():
        widget.description = widget.description or name
        widget.observe(answer, "value")
    answer()
    return VBox([HBox(list(widgets.values()), layout=Layout(flex_flow="row wrap")), picture])

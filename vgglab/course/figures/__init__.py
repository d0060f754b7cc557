"""Every figure of the course; each function returns a matplotlib Figure, which a notebook shows by itself."""

# ruff: noqa: F401  what is imported here is there for the notebooks
from vgglab._checks import extra

with extra("course"):
    import ipywidgets
    import matplotlib
    import matplotlib_inline.backend_inline  # registers the PNG display of figures in notebooks

from vgglab.course.figures.experiments import error_rates, forest, learned_grid, pairing
from vgglab.course.figures.lrn import lrn_channels, lrn_curves, lrn_spike, move_lrn
from vgglab.course.figures.neighbours import branch_costs, decade, effort, gradients, schematic, shifts
from vgglab.course.figures.receptive_fields import cone, effective_fields, field_at, field_walk, move_field, profiles
from vgglab.course.figures.seeing import agreement, confusion, excited, feature_maps, filters, heat_maps
from vgglab.course.figures.small_kernels import counted_and_measured, kernel_costs, maps
from vgglab.course.figures.start import answers, garments
from vgglab.course.figures.style import STYLE
from vgglab.course.figures.testing import (
    accuracy_by_scale,
    costs_and_gains,
    crop_grid,
    move_score_map,
    padding_reach,
    score_maps,
)
from vgglab.course.figures.training import gaps, losses, pictures, recorded_runs, schedules, signal, training_curves
from vgglab.course.figures.vgg_blocks import configurations, ledger_bars, shape_walk

matplotlib.rcParams.update(STYLE)  # for what is drawn into a figure later: lines, legends

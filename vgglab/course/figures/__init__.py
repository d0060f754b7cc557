"""Every figure of the course; each function returns a matplotlib Figure, which a notebook shows by itself."""

import matplotlib
import matplotlib_inline.backend_inline  # noqa: F401  registers the PNG display of figures in notebooks

from vgglab.course.figures.experiments import error_rates, forest, learned_grid, pairing
from vgglab.course.figures.lrn import lrn_curves, lrn_spike, maps
from vgglab.course.figures.neighbours import branch_costs, decade, effort, gradients, shifts
from vgglab.course.figures.receptive_fields import cone, effective_fields, field_walk, profiles
from vgglab.course.figures.seeing import agreement, confusion, excited, feature_maps, filters, heat_maps
from vgglab.course.figures.small_kernels import counted_and_measured, kernel_costs, over_channels
from vgglab.course.figures.style import STYLE
from vgglab.course.figures.testing import accuracy_by_scale, costs_and_accuracies, crop_grid, score_maps
from vgglab.course.figures.training import (
    answers,
    gaps,
    garments,
    losses,
    pictures,
    recorded_runs,
    schedules,
    signal,
    training_curves,
)
from vgglab.course.figures.vgg_blocks import configurations, ledger_bars

matplotlib.rcParams.update(STYLE)  # for what is drawn into a figure later: lines, legends

__all__ = [
    "accuracy_by_scale",
    "agreement",
    "answers",
    "branch_costs",
    "cone",
    "configurations",
    "confusion",
    "costs_and_accuracies",
    "counted_and_measured",
    "crop_grid",
    "decade",
    "effective_fields",
    "effort",
    "excited",
    "feature_maps",
    "error_rates",
    "field_walk",
    "forest",
    "filters",
    "gaps",
    "garments",
    "gradients",
    "heat_maps",
    "kernel_costs",
    "learned_grid",
    "ledger_bars",
    "losses",
    "lrn_curves",
    "lrn_spike",
    "maps",
    "over_channels",
    "pairing",
    "pictures",
    "profiles",
    "recorded_runs",
    "schedules",
    "score_maps",
    "shifts",
    "signal",
    "training_curves",
]

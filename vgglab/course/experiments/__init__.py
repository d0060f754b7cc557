"""The paper's comparisons: what is compared, the runner, and the recorded runs."""

from vgglab.course.experiments.networks import Network, Photographs, training_seconds
from vgglab.course.experiments.records import (
    Comparison,
    Record,
    bootstrap_interval,
    find_records,
    load_record,
    record_path,
    t_interval,
    t_quantile,
)
from vgglab.course.experiments.registry import EXPERIMENTS, GPU_EXPERIMENTS, Experiment, find_experiment
from vgglab.course.experiments.runner import run

__all__ = [
    "EXPERIMENTS",
    "GPU_EXPERIMENTS",
    "Comparison",
    "Experiment",
    "Network",
    "Photographs",
    "Record",
    "bootstrap_interval",
    "find_experiment",
    "find_records",
    "load_record",
    "record_path",
    "run",
    "t_interval",
    "t_quantile",
    "training_seconds",
]

"""Training and testing a network: the loop, its recipes, and what it reports."""

from vgglab.training.loop import evaluate, fit
from vgglab.training.recipe import RECIPES, SCHEDULES, Recipe, find_recipe
from vgglab.training.run import History
from vgglab.training.testing import Evaluation

__all__ = ["RECIPES", "SCHEDULES", "Evaluation", "History", "Recipe", "evaluate", "find_recipe", "fit"]

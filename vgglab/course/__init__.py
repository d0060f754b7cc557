"""What only the lessons need: figures, exercises, experiments, and what a class has done.

Figures need the extra "course"; without it all else can be imported, which says so.
"""

import warnings
from importlib.util import find_spec

if find_spec("matplotlib") is None:
    warnings.warn('no figures without matplotlib: pip install "vgglab[course]"', stacklevel=2)

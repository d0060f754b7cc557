"""What only the lessons need: figures, exercises, experiments, and what a class has done."""

from vgglab._checks import extra

with extra("course"):
    import matplotlib  # noqa: F401

"""The exercise of lesson 00."""

import math

from vgglab.course.exercises.judge import value

EXERCISES = {
    "S-1": value(
        math.log(100),
        "each class has the probability 1/100, and the loss is minus its logarithm",
        [(0.01, "0.01 is the probability; what is the loss of it?"), (2.0, "that is the logarithm to base 10")],
    )
}

"""The exercise of lesson 00."""

import math

from vgglab.course.exercises.judge import Judge, Value, Values

EXERCISES: dict[str, Judge] = {
    "S-1": Values(
        "which probability does softmax give the true class, and what does the loss make of it?",
        loss=Value(
            math.log(100),
            {
                0.01: "that is the probability; what is the loss of it?",
                2: "that is the logarithm to base 10",
                math.log(10): "that is the loss with ten classes",
                -math.log(100): "a loss is not negative",
            },
            step=0.01,
        ),
    )
}

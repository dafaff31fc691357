"""The space in which Ramachandran et al. 2017 searched (section 2): core units b(u1(x1), u2(x2)), one or two of them.

β is one trainable parameter per channel for the whole function.
"""

import itertools
from collections.abc import Iterator

from models.expressions import ExpressionError, Tree, check, identity, parse

UNARY = (
    "{a}", "-{a}", "abs({a})", "{a} ** 2", "{a} ** 3", "sqrt({a})", "beta * {a}", "{a} + beta", "log(abs({a}) + eps)",
    "exp({a})", "sin({a})", "cos({a})", "sinh({a})", "cosh({a})", "tanh({a})", "asinh({a})", "atan({a})", "sinc({a})",
    "max({a}, 0)", "min({a}, 0)", "sigmoid({a})", "softplus({a})", "exp(-({a}) ** 2)", "erf({a})", "beta",
)  # fmt: skip
BINARY = (
    "({a}) + ({b})", "({a}) * ({b})", "({a}) - ({b})", "({a}) / ({b} + eps)", "max({a}, {b})", "min({a}, {b})",
    "sigmoid({a}) * ({b})", "exp(-beta * (({a}) - ({b})) ** 2)", "exp(-beta * abs(({a}) - ({b})))",
    "beta * ({a}) + (1 - beta) * ({b})",
)  # fmt: skip
INPUT, FIRST_UNIT = "x", "first unit"

Choice = dict[str, str]  # of a name such as unary_1 to one of its options


def options(units: int) -> dict[str, tuple[str, ...]]:
    """What has to be chosen for a function of so many core units, and from what. Raises ValueError for any number
    but 1 and 2."""
    if units not in (1, 2):
        raise ValueError(f"search.units={units}: a function has 1 core unit or 2")
    found: dict[str, tuple[str, ...]] = {"unary_1": UNARY, "unary_2": UNARY, "binary_1": BINARY}
    if units == 2:
        inputs = (INPUT, FIRST_UNIT)
        found |= {"input_3": inputs, "unary_3": UNARY, "input_4": inputs, "unary_4": UNARY, "binary_2": BINARY}
    return found


def everything(units: int) -> Iterator[Choice]:
    """All choices, one after the other."""
    names, values = zip(*options(units).items())
    return (dict(zip(names, chosen)) for chosen in itertools.product(*values))


def text_of(choice: Choice) -> str:
    """The function that was chosen, as text."""

    def unit(binary: str, *sides: tuple[str, str]) -> str:
        a, b = (choice[unary].format(a=given if given == "x" else f"({given})") for unary, given in sides)
        return choice[binary].format(a=a, b=b)

    first = unit("binary_1", ("unary_1", "x"), ("unary_2", "x"))
    if "binary_2" not in choice:
        return first
    given = {INPUT: "x", FIRST_UNIT: first}
    return unit("binary_2", ("unary_3", given[choice["input_3"]]), ("unary_4", given[choice["input_4"]]))


def takes_x_itself(choice: Choice) -> bool:
    """Whether the function has the form b(x, g(x)): the last binary function gets the bare x, or -x, on one side."""
    last = ("unary_3", "unary_4") if "binary_2" in choice else ("unary_1", "unary_2")
    inputs = {"unary_3": "input_3", "unary_4": "input_4"}
    return any(choice[unary] in ("{a}", "-{a}") and choice.get(inputs.get(unary, ""), INPUT) == INPUT for unary in last)


def candidate(choice: Choice, max_operations: int) -> tuple[Tree, str]:
    """The function and the key that it shares with all other ways to write it.

    Raises ExpressionError if it is not to be trained with: not finite, constant, or of too many operations.
    """
    tree = parse(text_of(choice))
    if tree.size > max_operations:
        raise ExpressionError(f"'{tree}' has {tree.size} operations, more than {max_operations}")
    check(tree)
    return tree, identity(tree)

"""The search space of Ramachandran et al. 2017 (section 2): functions of one or two core units b(u1(x1), u2(x2)).

β is one trainable parameter per channel, shared by the whole function.
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

Choice = dict[str, str]  # from a name such as unary_1 to one of its options


def options(units: int) -> dict[str, tuple[str, ...]]:
    """The options of each choice for a function of `units` core units. Raises ValueError if `units` is not 1 or 2."""
    if units not in (1, 2):
        raise ValueError(f"search.units={units}: a function has 1 or 2 core units")
    result: dict[str, tuple[str, ...]] = {"unary_1": UNARY, "unary_2": UNARY, "binary_1": BINARY}
    if units == 2:
        inputs = (INPUT, FIRST_UNIT)
        result |= {"input_3": inputs, "unary_3": UNARY, "input_4": inputs, "unary_4": UNARY, "binary_2": BINARY}
    return result


def all_choices(units: int) -> Iterator[Choice]:
    """Every point of the search space."""
    names, values = zip(*options(units).items())
    return (dict(zip(names, chosen)) for chosen in itertools.product(*values))


def text_of(choice: Choice) -> str:
    """The expression of the chosen function."""

    def unit(binary: str, *sides: tuple[str, str]) -> str:
        a, b = (choice[unary].format(a=value if value == "x" else f"({value})") for unary, value in sides)
        return choice[binary].format(a=a, b=b)

    first = unit("binary_1", ("unary_1", "x"), ("unary_2", "x"))
    if "binary_2" not in choice:
        return first
    values = {INPUT: "x", FIRST_UNIT: first}
    return unit("binary_2", ("unary_3", values[choice["input_3"]]), ("unary_4", values[choice["input_4"]]))


def has_bare_x(choice: Choice) -> bool:
    """Whether the function has the form b(x, g(x)): one argument of the last binary function is x or -x."""
    last = ("unary_3", "unary_4") if "binary_2" in choice else ("unary_1", "unary_2")
    inputs = {"unary_3": "input_3", "unary_4": "input_4"}
    return any(choice[unary] in ("{a}", "-{a}") and choice.get(inputs.get(unary, ""), INPUT) == INPUT for unary in last)


def candidate(choice: Choice, max_operations: int) -> tuple[Tree, str]:
    """The chosen function and its key, which is the same for all equivalent expressions.

    Raises ExpressionError if it is not finite, constant, or has more than `max_operations` operations.
    """
    tree = parse(text_of(choice))
    if tree.size > max_operations:
        raise ExpressionError(f"'{tree}' has {tree.size} operations, more than {max_operations}")
    check(tree)
    return tree, identity(tree)

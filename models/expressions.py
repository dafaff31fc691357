"""Activation functions given as text, such as `x * sigmoid(beta * x)`: parsed into a tree, never eval'd.

The grammar covers the search space of Ramachandran et al. 2017 (section 2). Unary functions: those of UNARY, and -a,
a ** 2, a ** 3, beta * a, a + beta, max(a, 0), min(a, 0), log(abs(a) + eps), exp(-a ** 2). Binary functions: a + b,
a * b, a - b, a / (b + eps), max(a, b), min(a, b), sigmoid(a) * b, exp(-beta * (a - b) ** 2), exp(-beta * abs(a - b)),
beta * a + (1 - beta) * b.
"""

import ast
import difflib
import hashlib
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from models.activations import Activation
from models.functions import asinh, maximum, minimum, sinc, softplus

EPSILON = 1e-7
LARGEST = torch.finfo(torch.float32).max  # of numbers
LONGEST = 200  # operations of a function, which may all lie inside of one another
SHOWN = 60  # characters of a text in an error message
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "log": torch.log,
    "exp": torch.exp,
    "sin": torch.sin,
    "cos": torch.cos,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asinh": asinh,
    "atan": torch.atan,
    "sinc": sinc,
    "sigmoid": torch.sigmoid,
    "softplus": softplus,
    "erf": torch.erf,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "max": maximum,
    "min": minimum,
}
COMMUTATIVE = {"+", "*", "max", "min"}
OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4}


class ExpressionError(ValueError):
    """Text that is not a valid activation function; the message says where and why."""


@dataclass(frozen=True)
class Tree:
    """A function of x and β. operation: "x", "beta", "number", or a key of UNARY or BINARY."""

    operation: str
    parts: tuple["Tree", ...] = ()
    number: float = 0.0

    def __call__(self, x: Tensor, beta: Tensor) -> Tensor:
        """The value at x (any shape); beta broadcasts to x."""
        if self.operation == "x":
            return x
        if self.operation == "beta":
            return beta
        if self.operation == "number":
            return torch.full((), self.number, dtype=x.dtype, device=x.device)
        if self.operation == "**":
            return self.parts[0](x, beta) ** int(self.parts[1].number)
        values = [part(x, beta) for part in self.parts]
        return UNARY[self.operation](*values) if len(values) == 1 else BINARY[self.operation](*values)

    @property
    def uses_beta(self) -> bool:
        return self.operation == "beta" or any(part.uses_beta for part in self.parts)

    @property
    def size(self) -> int:
        """The number of operations."""
        return bool(self.parts) + sum(part.size for part in self.parts)

    def __str__(self) -> str:
        """Text that parses to this function; the operands of commutative operations are in a fixed order."""
        if self.operation == "number":
            return "eps" if self.number == EPSILON else repr(self.number).removesuffix(".0")
        if not self.parts:
            return self.operation
        own = PRECEDENCE.get(self.operation, 0)
        texts = []
        for index, part in enumerate(self.chain()):
            inner, text = PRECEDENCE.get(part.operation, 0), str(part)
            loose = 0 < inner < own + (index > 0 and self.operation in ("-", "/"))
            raised = self.operation == "**" and part.operation in ("neg", "**")
            texts.append(f"({text})" if own and (loose or raised) else text)
        if self.operation == "neg":
            return f"-{texts[0]}"
        if self.operation in COMMUTATIVE:
            texts.sort(key=lambda text: (text.startswith(("-", "(")), len(text), text))
        return f" {self.operation} ".join(texts) if own else f"{self.operation}({', '.join(texts)})"

    def chain(self) -> list["Tree"]:
        """The operands; nested sums and nested products are flattened."""
        if self.operation not in ("+", "*"):
            return list(self.parts)
        return [each for part in self.parts for each in (part.chain() if part.operation == self.operation else [part])]


@cache
def parse(text: str) -> Tree:
    """The tree of an expression. Raises ExpressionError with the position of the error."""
    try:
        tree = convert(ast.parse(text.strip(), mode="eval").body, text.strip())
        size = tree.size
    except SyntaxError as error:
        place = f"malformed at character {error.offset or 1}"
        raise ExpressionError(f"'{short(text)}' is {place}: {short(error.msg)}") from None
    except (RecursionError, MemoryError):
        raise ExpressionError(f"'{short(text)}' is nested too deeply") from None
    if size > LONGEST:
        raise ExpressionError(f"'{short(text)}' has {size} operations; {LONGEST} are the most")
    return tree


def short(text: str) -> str:
    """A text, or how it begins."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def convert(node: ast.expr, text: str) -> Tree:
    """Convert a node of Python's syntax tree to a Tree. Raises ExpressionError."""

    def error(reason: str) -> ExpressionError:
        return ExpressionError(f"'{short(text)}', character {node.col_offset + 1}: {reason}")

    if isinstance(node, ast.Name):
        if node.id == "eps":
            return Tree("number", number=EPSILON)
        if node.id in ("x", "beta"):
            return Tree(node.id)
        raise error(f"unknown name '{node.id}'; the names are x, beta and eps")
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if node.value > LARGEST:  # type: ignore[operator]
            raise error(f"a number must be at most {LARGEST:.1e}")
        return Tree("number", number=float(node.value))  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return Tree("neg", (convert(node.operand, text),))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = convert(node.left, text), convert(node.right, text)
        if isinstance(node.op, ast.Pow) and not (right.operation == "number" and right.number in (2, 3)):
            raise error("an exponent must be 2 or 3")
        return Tree(OPERATORS[type(node.op)], (left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name, known = node.func.id, [*UNARY, "max", "min"]
        if name == "neg" or name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise error(f"unknown function '{name}'; " + (f"the nearest is '{near[0]}'" if near else ", ".join(known)))
        wanted = 1 if name in UNARY else 2
        if len(node.args) != wanted:
            raise error(f"{name} takes {wanted} argument{'s' * (wanted > 1)}, not {len(node.args)}")
        return Tree(name, tuple(convert(argument, text) for argument in node.args))
    raise error("only x, beta, eps, numbers, + - * / ** and functions of them are allowed")


def check(tree: Tree) -> None:
    """Raise ExpressionError if the function is constant, or not finite, on [-10, 10] with β = 1."""
    x = (torch.arange(-1000, 1001, device="cpu") / 100).requires_grad_()  # cpu: the default device may be meta
    value = tree(x, torch.ones((), device="cpu"))
    if not value.requires_grad:
        raise ExpressionError(f"'{short(str(tree))}' is constant: it does not depend on x")
    (slope,) = torch.autograd.grad(value.sum(), x)
    for what, found in (("value", value), ("slope", slope)):
        bad = ~found.isfinite()
        if bad.any():
            raise ExpressionError(f"'{short(str(tree))}' has a {what} that is not finite at x = {x[bad][0].item():g}")
    if value.std().item() < 1e-5:
        raise ExpressionError(f"'{short(str(tree))}' is constant on [-10, 10]")


def identity(tree: Tree) -> str:
    """A key that is equal for two trees if and only if they are the same function of x and β.

    It is a digest of the function's values, to six digits, at points x and values of β without special identities.
    """
    x = torch.linspace(-4.9, 5.3, 61, dtype=torch.float64)
    values = torch.stack([tree(x, torch.tensor(beta, dtype=torch.float64)).expand_as(x) for beta in (1.0, 0.37, 1.9)])
    digits = [f"{value:.5e}" for value in (values + 0.0).flatten().tolist()]
    return hashlib.sha256(" ".join(digits).encode()).hexdigest()[:16]


def checked(text: str) -> str:
    """Return the text. Raises ExpressionError if it is not a valid activation function."""
    check(parse(text))
    return text


FunctionText = Annotated[str, AfterValidator(checked)]  # rejects a bad configuration before anything is built


class Expression(Activation):
    """The function given by `text`, with one trainable β per channel if the text contains beta.

    Raises ExpressionError if the text is malformed or has unknown names, or if the function is constant or not finite
    on [-10, 10].
    """

    def __init__(self, channels: int, text: FunctionText, channel_dimension: int = -1, initial_beta: float = 1.0):
        super().__init__(channels, channel_dimension)
        self.tree = parse(checked(text))
        if self.tree.uses_beta:
            self.beta = nn.Parameter(torch.full((channels,), initial_beta))

    def forward(self, x: Tensor) -> Tensor:
        return self.tree(x, self.per_channel(self.beta, x) if self.tree.uses_beta else x.new_ones(()))

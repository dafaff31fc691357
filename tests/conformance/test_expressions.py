"""What holds for functions given as text: the language, what is refused and where, one key for one function."""

import random

import pytest
import torch
from support import composed

from experiments.activation_search.space import BINARY, UNARY, all_choices, candidate, has_bare_x, options, text_of
from experiments.config.checks import plain
from experiments.config.compose import compose
from experiments.config.errors import ConfigError
from experiments.config.overrides import quote_text
from models.activations import Activation
from models.expressions import Expression, ExpressionError, Tree, check, identity, parse

X = (torch.arange(-40, 41) / 10).double()
ONE = torch.ones((), dtype=torch.float64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x *", "malformed at character"),
        ("x * sigmod(x)", "character 5: unknown function 'sigmod'; the nearest is 'sigmoid'"),
        ("x + y", "character 5: unknown name 'y'"),
        ("max(x)", "character 1: max takes 2 arguments, not 1"),
        ("x ** 2.5", "character 1: an exponent must be 2 or 3"),
        ("x ** x", "an exponent must be 2 or 3"),
        ("x if x else 0", "character 1: only x, beta"),
        ("__import__('os').system('true')", "character 1: only x, beta"),
        ("().__class__", "only x, beta"),
        ("exec(x)", "unknown function 'exec'"),
        ("lambda: x", "only x, beta"),
        ("1e999 * x", "character 1: a number must be at most 3.4e"),
        ("1e39 * x", "character 1: a number must be at most 3.4e"),
        ("x * " + "9" * 400, "character 5: a number must be at most 3.4e"),
        ("x + " + "9" * 5000, "malformed"),
        (" + ".join("x" * 202), "has 201 operations; 200 are the most"),
        ("sin(" * 201 + "x" + ")" * 201, "has 201 operations|nested too deeply|malformed"),
        (" + ".join("x" * 5000), "operations|nested too deeply"),
        ("-" * 2000 + "x", "operations|nested too deeply|malformed"),
        ("neg(x)", "unknown function 'neg'"),
        ("", "malformed at character 1"),
        ("(" * 500 + "x" + ")" * 500, "malformed|nested"),
        ("x\n+ 1 2", "malformed"),
    ],
)
def test_what_is_no_expression_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value).replace(text, "") and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + beta", "constant"),
        ("x - x", "constant"),
        ("sqrt(x)", "value that is not finite at x = -10"),
        ("1 / x", "value that is not finite at x = 0"),
        ("log(x ** 2)", "value that is not finite at x = 0"),
        ("sqrt(abs(x))", "slope that is not finite at x = 0"),
        ("exp(exp(exp(x)))", "value that is not finite at x = "),
    ],
)
def test_a_function_that_cannot_be_trained_with_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        check(parse(text))
    with pytest.raises(ExpressionError):
        Expression(3, text)


def test_a_configuration_refuses_it_before_anything_is_built() -> None:
    override = quote_text("activation.text=x * sigmod(x)")
    with pytest.raises(ConfigError, match="character 5: unknown function 'sigmod'"):
        compose(["experiment=activation_images", "activation=expression", override])
    plain(composed("activation=expression", quote_text("activation.text=max(x, sigmoid(x))")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x * sigmoid(x)", "sigmoid(x) * x"),
        ("max(x, sigmoid(x))", "max(sigmoid(x), x)"),
        ("min(x, 0) + max(x, 0)", "x"),
        ("x - -x", "x + x"),
        ("exp(-beta * abs(x - sin(x)))", "exp(-beta * abs(sin(x) - x))"),
        ("softplus(x) - softplus(-x)", "x"),
    ],
)
def test_two_ways_to_write_a_function_share_a_key(one: str, other: str) -> None:
    assert identity(parse(one)) == identity(parse(other))


def test_different_functions_have_different_keys() -> None:
    texts = ["x * sigmoid(x)", "x * sigmoid(beta * x)", "x * sigmoid(-x)", "max(x, 0)", "max(x, sigmoid(x))", "x", "-x"]
    assert len({identity(parse(text)) for text in texts}) == len(texts)


def test_a_tree_s_text_is_its_own_function() -> None:
    """Over functions of one and of two units, drawn at random."""
    drawn = random.Random(0)
    seen = 0
    for _ in range(300):
        units = drawn.choice([1, 2])
        tree = parse(text_of({name: drawn.choice(values) for name, values in options(units).items()}))
        again = parse(str(tree))
        value, other = tree(X, ONE), again(X, ONE)
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-9, equal_nan=True)
        assert str(again) == str(tree)
        seen += 1
    assert seen == 300


def test_the_text_orders_what_may_be_exchanged() -> None:
    assert str(parse("sigmoid(x) * x")) == str(parse("x * sigmoid(x)")) == "x * sigmoid(x)"
    assert str(parse("(x + 1) * (x - (x - 1))")).count("(") == 3


def test_the_space_has_the_papers_functions() -> None:
    """25 unary and 10 binary functions, each as the paper defines it."""
    assert (len(UNARY), len(BINARY)) == (25, 10)
    x = X.abs() + 0.1
    expected = [
        x, -x, x.abs(), x**2, x**3, x.sqrt(), 0.5 * x, x + 0.5, (x.abs() + 1e-7).log(), x.exp(), x.sin(), x.cos(),
        x.sinh(), x.cosh(), x.tanh(), x.asinh(), x.atan(), x.sin() / x, x.clamp(min=0), x.clamp(max=0), x.sigmoid(),
        (1 + x.exp()).log(), (-(x**2)).exp(), x.erf(), 0 * x + 0.5,
    ]  # fmt: skip
    half = torch.tensor(0.5, dtype=torch.float64)
    for form, value in zip(UNARY, expected, strict=True):
        torch.testing.assert_close(parse(form.format(a="x"))(x, half).expand_as(x), value)
    y = x.sin()
    binary = [
        x + y, x * y, x - y, x / (y + 1e-7), torch.maximum(x, y), torch.minimum(x, y), x.sigmoid() * y,
        (-0.5 * (x - y) ** 2).exp(), (-0.5 * (x - y).abs()).exp(), 0.5 * x + 0.5 * y,
    ]  # fmt: skip
    for form, value in zip(BINARY, binary, strict=True):
        torch.testing.assert_close(parse(form.format(a="x", b="sin(x)"))(x, half), value)


def test_swish_and_relu_are_in_the_space() -> None:
    found = {"swish": False, "relu": False}
    wanted = {identity(parse(text)): name for name, text in (("swish", "x * sigmoid(beta * x)"), ("relu", "max(x, 0)"))}
    for choice in all_choices(1):
        if "sigmoid" in choice["binary_1"] or "max" in choice["binary_1"]:
            key = identity(parse(text_of(choice)))
            if key in wanted:
                found[wanted[key]] = True
    assert all(found.values())


def test_a_candidate_is_cheap_finite_and_not_constant() -> None:
    swish = {"unary_1": "beta * {a}", "unary_2": "{a}", "binary_1": "sigmoid({a}) * ({b})"}
    tree, key = candidate(swish, 12)
    assert isinstance(tree, Tree) and key == identity(parse("x * sigmoid(beta * x)"))
    assert has_bare_x(swish) and not has_bare_x(swish | {"unary_2": "tanh({a})"})
    two = swish | {
        "input_3": "first unit",
        "unary_3": "{a}",
        "input_4": "x",
        "unary_4": "sin({a})",
        "binary_2": BINARY[0],
    }
    assert not has_bare_x(two) and has_bare_x(two | {"input_3": "x"})
    with pytest.raises(ExpressionError, match="3 operations, more than 2"):
        candidate(swish, 2)


def test_beta_is_there_only_if_it_is_in_the_text() -> None:
    with_beta, without = Expression(5, "x * sigmoid(beta * x)"), Expression(5, "x * sigmoid(x)")
    assert isinstance(with_beta, Activation)
    assert [tuple(p.shape) for p in with_beta.parameters()] == [(5,)] and not list(without.parameters())


@pytest.mark.parametrize("text", ["max(x, beta)", "min(x, beta) + max(x, 0.5)", "sinc(x) + beta * asinh(x)"])
def test_gradients_equal_finite_differences_where_beta_takes_part(text: str) -> None:
    """Also through functions whose gradients are written by hand, and whose arguments broadcast to each other."""
    function = Expression(3, text).double()
    x = torch.linspace(-7.3, 7.1, 30).double().view(10, 3).requires_grad_()
    beta = torch.tensor([0.3, 1.1, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, beta: torch.func.functional_call(function, {"beta": beta}, x), (x, beta))

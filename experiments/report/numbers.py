"""Numbers as text: one number by itself, and the format that all numbers of a column share."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.ledger.claims import Comparison

SIGNIFICANT = 3  # digits of a measured number
MOST_DECIMALS = 6
WIDEST = 1e5  # largest / smallest magnitude of a column that decimals can show
MISSING = "–"
DIGIT_SPACE, POINT_SPACE = "\N{FIGURE SPACE}", "\N{PUNCTUATION SPACE}"


@dataclass(frozen=True)
class NumberFormat:
    """How all numbers of a column are written.

    scientific: with an exponent. exact: whole numbers, written with all their digits; measured ones above 1,000 are
    rounded to three significant digits.
    """

    decimals: int = 0
    scientific: bool = False
    exact: bool = False

    def __call__(self, value: Any) -> str:
        """The number with thousands separators and a typographic minus; a dash if there is none."""
        if value is None or not math.isfinite(value):
            return MISSING
        if self.scientific:
            return signed(f"{value:.{self.decimals}e}" if value else "0")
        if not self.exact and not self.decimals and value:
            value = round(value, min(0, SIGNIFICANT - 1 - magnitude(value)))
        text = signed(f"{value:,.{self.decimals}f}")
        return text.removeprefix("−") if not text.strip("−0.,") else text

    def padding(self, decimals: int) -> str:
        """Spaces as wide as the digits that this format has fewer than `decimals`, to align decimal points."""
        if self.scientific or decimals <= self.decimals:
            return ""
        return DIGIT_SPACE * (decimals - self.decimals) + POINT_SPACE * (not self.decimals)


def column_format(values: Iterable[Any], half_widths: Sequence[float] = ()) -> NumberFormat:
    """The format of a column.

    The decimals give the narrowest interval's half width two significant digits, but at most one decimal more than a
    typical one needs; without intervals, they give a typical number three. No decimals that are zero in all numbers. A
    column whose numbers differ by more than five orders of magnitude has exponents.
    """
    finite = [value for value in values if is_number(value) and math.isfinite(value)]
    if all(value == int(value) for value in finite) and not half_widths:
        return NumberFormat(exact=True)
    sizes = sorted(abs(value) for value in finite if value)
    errors = sorted(width for width in half_widths if 0 < width < math.inf)
    if sizes and (spread(sizes, errors) > WIDEST or sizes[-1] < 10.0 ** (SIGNIFICANT - 1 - MOST_DECIMALS)):
        return NumberFormat(1, scientific=True)
    if errors:
        decimals = min(1 - magnitude(errors[0]), 2 - magnitude(errors[len(errors) // 2]))
    else:
        decimals = SIGNIFICANT - 1 - magnitude(sizes[len(sizes) // 2]) if sizes else 0
    decimals = max(0, min(decimals, MOST_DECIMALS))
    while decimals and all(round(value, decimals) == round(value, decimals - 1) for value in finite):
        decimals -= 1
    return NumberFormat(decimals)


def spread(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """How many times the greatest number is the smallest; of intervals, the smallest half width."""
    return sizes[-1] / (errors or sizes)[0]


def magnitude(value: float) -> int:
    """The power of ten of a number's first digit."""
    return math.floor(math.log10(abs(value)))


def is_number(value: Any) -> bool:
    """Whether a cell holds a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def stated(value: float) -> str:
    """A number with the digits that it was written with."""
    return signed(without_zeros(f"{value:,.10g}"))


def without_zeros(text: str) -> str:
    """A number's text without leading zeros of its exponent."""
    return text.replace("e-0", "e-").replace("e+0", "e+")


def signed(text: str) -> str:
    """A number's text with a typographic minus."""
    return text.replace("-", "−")


def plain(value: float | None) -> str:
    """A number to three significant digits in ASCII, whole from 1,000 on; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = float(f"{value:.3g}")
    if abs(rounded) < 1000:
        return without_zeros(f"{rounded:.3g}")
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{rounded:,.0f}"


def number(value: Any) -> str:
    """A number by itself, with a typographic minus; an integer with all its digits."""
    return signed(f"{value:,}" if isinstance(value, int) else plain(value))


def span(values: Sequence[int]) -> str:
    """The least and the greatest of some counts."""
    ends = list(dict.fromkeys(f"{value:,}" for value in sorted(values)[:: max(1, len(values) - 1)]))
    return "–".join(ends) or MISSING


def claimed(comparison: Comparison) -> str:
    """The side of the threshold, or the value, that the claim predicts, with all digits of the claim's file."""
    threshold, tolerance = stated(comparison.threshold), stated(comparison.tolerance)
    if comparison.rule == "exact":
        return f"{threshold} ± {tolerance}" if comparison.tolerance else f"exactly {threshold}"
    if comparison.rule == "equivalence":
        return f"{threshold} ± {stated(comparison.smallest or 0)}"
    return f"{comparison.side} {threshold}"

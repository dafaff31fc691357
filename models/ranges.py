"""Ranges of settings that the classes of this package share; the configuration is checked against them."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

# The upper ends are far beyond what has been trained, and keep the number of weights within 64 bits.
Layers = Annotated[PositiveInt, Field(le=10_000)]
Width = Annotated[PositiveInt, Field(le=1_000_000)]  # channels or features
Factor = Annotated[PositiveFloat, Field(le=1_000)]  # of a width, a length or a number of layers

"""Ranges of settings that tasks and data share; the configuration is checked against them."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

Share = Annotated[float, Field(gt=0, lt=1)]
VocabularySize = Annotated[PositiveInt, Field(le=1_000_000)]  # the trainer of tokenizers reserves memory for all of it
Doublings = Annotated[NonNegativeInt, Field(le=20)]
Generated = Annotated[PositiveInt, Field(le=1_000_000)]  # documents or images, which memory holds

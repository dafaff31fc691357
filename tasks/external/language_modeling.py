"""Perplexity of an external model."""

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from tasks.base import Measurement
from tasks.data.source import SPLITS, DataError
from tasks.data.text import Document
from tasks.data.tokens import Corpus, TokenStream
from tasks.external import TextTokenizer, context_length
from tasks.scoring import FEWEST, Scoring, joined

LONGEST_WINDOW = 4096  # tokens, unless task.length is set


class ExternalLanguageModeling(Measurement, Scoring):
    """Both protocols of Scoring on the documents of a split, in the model's own tokens.

    A document starts with the model's opening token; without one, its first token is context and is not scored. length:
    tokens of a window; None for the model's context, up to 4,096. stride: of the sliding protocol; None for half a
    window. split: train, validation, test, or all, if the model was trained on none of the texts. Raises DataError if
    there are no documents.
    """

    def __init__(
        self,
        data: Corpus,
        tokenizer: TextTokenizer,
        limit: int | None,
        split: Literal["train", "validation", "test", "all"],
        length: PositiveInt | None,
        stride: PositiveInt | None,
        evaluation_tokens: PositiveInt,
        batch_size: PositiveInt,
    ):
        self.length = self.window = context_length(length, limit, LONGEST_WINDOW)
        self.stride = stride or max(1, self.window // 2)
        self.check_windows()
        self.evaluation_tokens, self.tokens_per_batch = evaluation_tokens, batch_size * self.window
        documents, sizes, share = [], [], max(1, evaluation_tokens // FEWEST)
        for document in documents_in(data, split):
            tokens, bytes_of = tokenizer.encode_with_bytes(document.text)
            if tokenizer.opening is not None:
                tokens, bytes_of = [tokenizer.opening, *tokens], [0, *bytes_of]
            if len(tokens) > 1:
                documents.append(np.array(tokens, dtype=np.int64))
                sizes.append(np.array(bytes_of, dtype=np.int64))
            if sum(min(len(document) - 1, share) for document in documents) >= evaluation_tokens:
                break
        if not documents:
            raise DataError(f"{data.name} has no document of two tokens or more in its {split} split")
        self.test = joined(documents)
        self.sizes = np.concatenate(sizes)

    def bytes_of(self, stream: TokenStream) -> np.ndarray:
        return self.sizes


def documents_in(data: Corpus, split: str) -> list[Document]:
    """The documents of a split, or of all splits. Raises DataError if there are none."""
    if split != "all":
        return data.documents(split)
    found: list[Document] = []
    reasons: list[str] = []
    for name in SPLITS:
        try:
            found += data.documents(name)
        except DataError as error:  # a single file leaves the other splits empty
            reasons.append(str(error))
    if not found:
        raise DataError(reasons[0] if reasons else f"{data.name} has no document")
    return found

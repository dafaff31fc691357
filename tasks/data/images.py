"""Labelled images as arrays."""

from functools import cached_property
from importlib.metadata import distribution
from typing import NamedTuple

import numpy as np

from tasks.data.hub import HubDataset
from tasks.data.source import DataError, fingerprint


class Images(NamedTuple):
    """Pixels (N, C, H, W) uint8 and labels (N,) int64."""

    pixels: np.ndarray
    labels: np.ndarray


class Digits:
    """scikit-learn's handwritten digits: 1,797 grey images of 8 × 8 pixels in ten classes, one fifth for testing."""

    name = "digits"

    @cached_property
    def everything(self) -> Images:
        """All images, read from the package's file because importing the package takes a second."""
        rows = np.loadtxt(
            str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")), delimiter=","
        )
        pixels = (rows[:, :-1] * (255 / 16)).round().astype(np.uint8).reshape(-1, 1, 8, 8)
        return Images(pixels, rows[:, -1].astype(np.int64))

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint([self.everything.pixels.tobytes(), self.everything.labels.tobytes()])

    def images(self, split: str) -> Images:
        """The images of the train or test split, which never changes."""
        pixels, labels = self.everything
        order = np.random.default_rng(0).permutation(len(labels))
        held_out = len(labels) // 5
        chosen = order[:held_out] if split == "test" else order[held_out:]
        return Images(pixels[chosen], labels[chosen])


class HubImages:
    """An image data set of the Hugging Face hub, such as CIFAR-10."""

    def __init__(
        self,
        identifier: str,
        image_column: str,
        label_column: str,
        cache: str,
        configuration: str | None = None,
        revision: str | None = None,
        path: str | None = None,
    ):
        self.name = identifier
        self.image_column, self.label_column = image_column, label_column
        self.dataset = HubDataset(identifier, [image_column, label_column], cache, configuration, revision, path)
        self.dataset.check()

    @cached_property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def images(self, split: str) -> Images:
        """The decoded images of the train or test split. Raises DataError if their sizes differ."""
        import datasets

        rows = self.dataset.rows(split).cast_column(self.image_column, datasets.Image())
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in rows[self.image_column]])
        if pixels.ndim != 4:
            raise DataError(f"{self.name} has images of different sizes; they must have one size")
        return Images(np.moveaxis(pixels, -1, 1), np.asarray(rows[self.label_column], dtype=np.int64))

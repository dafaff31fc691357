"""Labelled images as arrays."""

import io
from functools import cached_property
from importlib.metadata import distribution
from typing import Annotated, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, TypeAdapter, ValidationError

from tasks.data.hub import HubDataset
from tasks.data.source import DataError, fingerprint

MODES = {"1", "L", "P", "RGB"}  # of Pillow; RGBA, LA and PA are read if they are opaque, 16-bit grey is scaled
LABELS = TypeAdapter(list[Annotated[int, Field(ge=0, lt=2**31)]])  # takes 3.0 and "3", not 3.5


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
        """The decoded images of the train or test split.

        Raises DataError if a row holds no image that can be shown in 8-bit colours as it is, or no label that is a
        whole number from 0, and if the sizes differ.
        """
        rows = self.dataset.rows(split)
        try:
            labels = LABELS.validate_python(rows.columns[self.label_column])
        except ValidationError as error:
            wrong = error.errors()[0]
            raise DataError(
                f"{rows.places[int(wrong['loc'][0])]}: the column {self.label_column} has {str(wrong['input'])[:40]}, "
                "but a label is the number of a class: 0, 1, 2 and so on"
            ) from error
        images = []
        for value, place in zip(rows.columns[self.image_column], rows.places, strict=True):
            try:
                images.append(decoded(value))
            except DataError as error:
                raise DataError(f"{place}: the column {self.image_column} has {error}") from error
            if images[-1].shape != images[0].shape:
                sizes = " and ".join("{1} × {0}".format(*image.shape) for image in (images[0], images[-1]))
                raise DataError(f"{place}: the first image and this one have {sizes} pixels; they must have one size")
        return Images(np.moveaxis(np.stack(images), -1, 1), np.asarray(labels, dtype=np.int64))


def decoded(value: Any) -> np.ndarray:
    """The pixels (H, W, 3) uint8 of an image file's bytes, or of {bytes, path}. Raises DataError, a phrase."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError("no image: it must hold the bytes of a PNG or JPEG file")
    try:
        opened = Image.open(io.BytesIO(content))
        opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"an image that cannot be read ({str(error).splitlines()[0]})") from error
    frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        raise DataError(f"an image of {frames} frames, not one")
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) / 257).round().astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise DataError("a transparent image: put it on a background, and save it as RGB")
    elif image.mode not in MODES:
        raise DataError(f"an image in the mode {image.mode}: save it as 8-bit RGB or grey")
    return np.asarray(image.convert("RGB"))

"""Images and labels of local files are read as they look, or refused by name and place."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.data.images import HubImages, Images
from tasks.data.source import DataError
from tasks.image_classification import ImageClassification


def png(pixels: np.ndarray | Image.Image, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, settings.pop("format", "PNG"), **settings)
    return buffer.getvalue()


def turned() -> bytes:
    """A bright left half, stored upright and marked as lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = 255
    return png(pixels, exif=exif)


def palette() -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return png(image)


GREY = np.full((4, 4), 100, np.uint8)
RGB = np.full((4, 4, 3), 100, np.uint8)
SHAPE = Image.new("RGBA", (4, 4))
ImageDraw.Draw(SHAPE).rectangle((1, 1, 2, 2), fill=(0, 0, 0, 255))
IMAGES: dict[str, tuple[Any, Any]] = {  # an image, and its pixel at the right end of the first row, or what is said
    "grey": (png(GREY), (100, 100, 100)),
    "rgb": (png(RGB), (100, 100, 100)),
    "jpeg": (png(RGB, format="JPEG"), (100, 100, 100)),
    "palette": (palette(), (10, 20, 30)),
    "one bit": (png(Image.new("1", (4, 4), 1)), (255, 255, 255)),
    "16-bit grey": (png(np.full((4, 4), 100 * 257, np.uint16)), (100, 100, 100)),
    "opaque": (png(Image.new("RGBA", (4, 4), (1, 2, 3, 255))), (1, 2, 3)),
    "turned": (turned(), (255, 255, 255)),
    "struct": ({"bytes": png(RGB), "path": "a.png"}, (100, 100, 100)),
    "alpha": (png(SHAPE), "a transparent image"),
    "transparent colour": (png(RGB, transparency=(100, 100, 100)), "a transparent image"),
    "cmyk": (png(Image.new("CMYK", (4, 4)), format="TIFF"), "an image in the mode CMYK"),
    "float": (png(np.full((4, 4), 0.5, np.float32), format="TIFF"), "an image in the mode F"),
    "frames": (png(Image.new("L", (4, 4)), save_all=True, append_images=[Image.new("L", (4, 4), 9)]), "2 frames"),
    "cut": (png(np.random.default_rng(0).integers(0, 255, (4, 4, 3)).astype(np.uint8))[:60], "cannot be read"),
    "no image": (b"GIF", "cannot be read"),
    "path": ({"bytes": None, "path": "a.png"}, "no image: it must hold the bytes"),
    "null": (None, "no image: it must hold the bytes"),
    "size": (png(np.full((4, 5), 9, np.uint8)), "4 × 4 and 5 × 4 pixels; they must have one size"),
}
LABELS: dict[str, tuple[Any, Any]] = {  # a label, and the class, or what is said
    "int": (3, 3),
    "whole float": (3.0, 3),
    "float": (3.7, "has 3.7, but a label is the number of a class"),
    "null": (None, "has None, but"),
    "nan": (float("nan"), "has nan, but"),
    "negative": (-1, "has -1, but"),
    "huge": (2**40, "has 1099511627776, but"),
    "text": ("cat", "has cat, but"),
    "digits": ("3", 3),
    "list": ([3], r"has \[0\], but"),
}


def hub_images(root: Path, image: Any, label: Any) -> HubImages:
    columns = {"img": [png(GREY), image], "label": [label if type(label) in (str, list) else 0, label]}
    if type(image) is not bytes:
        columns["img"] = [{"bytes": png(GREY), "path": None}, image]
    if type(label) is str:
        columns["label"] = ["0", label]
    if type(label) is list:
        columns["label"] = [[0], label]
    for split in ("train", "test"):
        datasets.Dataset.from_dict(columns | {"split": [split] * 2}).to_parquet(root / f"{split}.parquet")
    return HubImages("some/images", "img", "label", str(root / "cache"), path=str(root))


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_is_read_as_it_looks_or_refused(case: str, tmp_path: Path) -> None:
    image, expected = IMAGES[case]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=rf"test\.parquet, row 1: .*{expected}"):
            hub_images(tmp_path, image, 1).images("test")
    else:
        pixels = hub_images(tmp_path, image, 1).images("test").pixels
        assert np.abs(pixels[1, :, 0, -1].astype(int) - expected).max() <= 1  # of a JPEG


@pytest.mark.parametrize("case", LABELS)
def test_a_label_is_the_number_of_a_class_or_refused(case: str, tmp_path: Path) -> None:
    label, expected = LABELS[case]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=rf"test\.parquet, row [01]: the column label {expected}"):
            hub_images(tmp_path, png(GREY), label).images("test")
    else:
        assert hub_images(tmp_path, png(GREY), label).images("test").labels.tolist() == [0, expected]


class Made:
    """Images of these labels; those of the test split have `side` pixels."""

    name, fingerprint = "made", "0"

    def __init__(self, labels: list[int], side: int = 4):
        self.labels, self.side = np.array(labels), side

    def images(self, split: str) -> Images:
        side = self.side if split == "test" else 4
        return Images(np.zeros((len(self.labels), 3, side, side), np.uint8), self.labels)


def test_images_of_one_class_and_splits_of_two_sizes_are_refused() -> None:
    settings = {"seed": 0, "batch_size": 2, "shift": 0, "flip": False}
    assert ImageClassification(Made([0, 1]), **settings).model_arguments["classes"] == 2
    with pytest.raises(DataError, match="of one class, 3: it needs two or more"):
        ImageClassification(Made([3, 3]), **settings)
    with pytest.raises(DataError, match=r"images of 4 × 4 pixels and test images of 5 × 5"):
        ImageClassification(Made([0, 1], side=5), **settings)

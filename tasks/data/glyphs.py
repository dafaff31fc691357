"""Letters and digits rendered from fonts: small colour images of 62 classes that need no download."""

import io
import math
import string
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydantic import NonNegativeInt

from tasks.data.images import Images
from tasks.data.source import DataError, cached, fingerprint
from tasks.ranges import Generated

CLASSES = string.digits + string.ascii_uppercase + string.ascii_lowercase
FONTS = (  # matplotlib's fonts that have all classes, in alphabetical order
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique", "DejaVuSansMono"),
    *("DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold"),
    *("DejaVuSerif-BoldItalic", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta"),
    *("STIXGeneralItalic", "cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)
SPLITS = ("train", "test")
VERSION = 1  # of the drawing code below: increase it with every change that changes a pixel
SIDE = 32  # width and height of an image, pixels
MASK = 80  # width and height of a letter's mask, in half pixels of the image
FONT_SIZE = 52  # in half pixels of the image
CONTRAST = 140  # the letter is brighter than the background by at least this, of 255
TURN = 0.1  # largest rotation and slant of a letter, radians
STRETCH = 0.1  # largest relative change of its width and of its height
MOVE = 0.5  # largest shift in each direction, pixels
OTHERS = 1  # most other letters at the edges
STROKES = 1  # most lines drawn over it
BLUR = 0.5  # largest radius, pixels
NOISE = 8.0  # largest standard deviation, of 255


class Glyphs:
    """Images of one character of 0-9, A-Z or a-z: random font, position, size, slant and colours, clutter, blur, noise.

    Letters are light on dark, and easy enough for a small network to learn within seconds. Every image has its own
    random generator, seeded with (seed, split, index), and its class is index mod 62. So splits are balanced and
    disjoint, and no image depends on the number of images. Images are drawn once and cached in `cache`.
    """

    name = "glyphs"

    def __init__(
        self, cache: str, seed: NonNegativeInt = 0, train_size: Generated = 12_000, test_size: Generated = 2_000
    ):
        self.cache = Path(cache) / "glyphs"
        self.seed, self.sizes = seed, dict(zip(SPLITS, (train_size, test_size)))

    @cached_property
    def font_files(self) -> list[Path]:
        import matplotlib

        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        files = [folder / f"{font}.ttf" for font in FONTS]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise DataError(f"data=glyphs needs matplotlib's fonts, and {folder} lacks {', '.join(missing)}")
        return files

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the images depend on, without drawing them."""
        settings = [str(VERSION), PIL.__version__, str(self.seed), *map(str, self.sizes.values())]
        return fingerprint([*settings, *(file.read_bytes() for file in self.font_files)])

    def images(self, split: str) -> Images:
        """The images of the train or test split."""
        return self.everything[split]

    @cached_property
    def everything(self) -> dict[str, Images]:
        """Both splits, from the cache; drawn if the cache is missing or damaged."""
        with np.load(io.BytesIO(cached(self.cache / self.fingerprint, self.drawn))) as arrays:
            pixels = {split: arrays[split] for split in SPLITS}
        return {split: Images(pixels[split], np.arange(self.sizes[split]) % len(CLASSES)) for split in SPLITS}

    def drawn(self) -> bytes:
        """Both splits as the content of a file that np.load reads."""
        buffer = io.BytesIO()
        train, test = map(self.draw, SPLITS)
        np.savez(buffer, train=train, test=test)
        return buffer.getvalue()

    def draw(self, split: str) -> np.ndarray:
        """The pixels (N, 3, 32, 32) of a split."""
        letters = [[mask(file, letter) for letter in CLASSES] for file in self.font_files]
        pixels = np.empty((self.sizes[split], 3, SIDE, SIDE), np.uint8)
        for index in range(len(pixels)):
            generator = np.random.default_rng([self.seed, SPLITS.index(split), index])
            pixels[index] = np.moveaxis(picture(index % len(CLASSES), letters, generator), -1, 0)
        return pixels


def mask(font_file: Path, letter: str) -> Image.Image:
    """The coverage of 80 × 80 half pixels by a centred letter; letters have their relative sizes in the font."""
    font = ImageFont.truetype(str(font_file), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = font.getbbox(letter)
    drawn = Image.new("L", (MASK, MASK))
    ImageDraw.Draw(drawn).text(((MASK - left - right) / 2, (MASK - top - bottom) / 2), letter, 255, font)
    return drawn


def picture(label: int, letters: list[list[Image.Image]], generator: np.random.Generator) -> np.ndarray:
    """An image (32, 32, 3) of a class; from back to front: background, other letters, the letter, strokes."""
    background, ink = colours(generator)
    pixels = np.empty((SIDE, SIDE, 3))
    pixels[:] = background
    for _ in range(generator.integers(OTHERS + 1)):
        font, other = generator.integers(len(letters)), generator.integers(len(CLASSES))
        angle, distance = generator.uniform(0, 2 * math.pi), generator.uniform(13, 19)
        away = distance * math.cos(angle), distance * math.sin(angle)
        cover(pixels, placed(letters[font][other], *away, generator), generator.uniform(0, 255, 3))
    font, (right, down) = generator.integers(len(letters)), generator.uniform(-MOVE, MOVE, 2)
    cover(pixels, placed(letters[font][label], right, down, generator), ink)
    for _ in range(generator.integers(STROKES + 1)):
        cover(pixels, stroke(generator), generator.uniform(0, 255, 3))
    blurred = Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(generator.uniform(0, BLUR)))
    noise = generator.normal(0, generator.uniform(0, NOISE), pixels.shape)
    return np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)


def colours(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random background colour and a brighter ink colour."""
    while True:
        background, ink = generator.uniform(0, 255, (2, 3))
        if (ink - background) @ (0.299, 0.587, 0.114) >= CONTRAST:  # brightness of ITU-R BT.601
            return background, ink


def cover(pixels: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> None:
    """Blend a colour into pixels by coverage (32, 32), in place."""
    pixels += coverage[:, :, None] * (colour - pixels)


def placed(letter: Image.Image, right: float, down: float, generator: np.random.Generator) -> np.ndarray:
    """A letter's coverage (32, 32), randomly scaled, slanted and rotated, at this offset from the centre in pixels."""
    turn, slant = generator.uniform(-TURN, TURN, 2)
    width, height = generator.uniform(1 - STRETCH, 1 + STRETCH, 2) / 2
    cos, sin = math.cos(turn), math.sin(turn)
    # Pillow needs the map from target to source pixels: the inverses of rotation, slant and scale, in this order.
    a, b = (cos + slant * sin) / width, (sin - slant * cos) / width
    d, e = -sin / height, cos / height
    x, y = SIDE / 2 + right, SIDE / 2 + down
    matrix = (a, b, MASK / 2 - a * x - b * y, d, e, MASK / 2 - d * x - e * y)
    return np.asarray(letter.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)) / 255


def stroke(generator: np.random.Generator) -> np.ndarray:
    """The coverage (32, 32) of a random straight line."""
    drawn = Image.new("L", (2 * SIDE, 2 * SIDE))
    ImageDraw.Draw(drawn).line(tuple(generator.uniform(0, 2 * SIDE, 4)), 255, width=int(generator.integers(1, 5)))
    return np.asarray(drawn.reduce(2)) / 255

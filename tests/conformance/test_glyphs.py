"""What holds for the drawn letters: made again bit by bit, balanced, splits apart, kept once and mended if damaged."""

from pathlib import Path
from typing import Any

import hydra
import numpy as np
import PIL
import pytest
from PIL import Image
from support import composed

from tasks.data import glyphs
from tasks.data.glyphs import CLASSES, CONTRAST, MASK, SIDE, Glyphs, colours, mask, picture
from tasks.data.source import DataError
from tasks.image_classification import ImageClassification

SIZES = {"train_size": 130, "test_size": 62}


def small(cache: Path, **settings: int) -> Glyphs:
    return Glyphs(str(cache), **(SIZES | settings))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Glyphs:
    """A small set; its images are not to be changed."""
    return small(tmp_path_factory.mktemp("cache"))


def refuse(*arguments: Any) -> None:
    raise AssertionError("drew what it need not have drawn")


def test_images_are_as_the_task_expects_them(drawn: Glyphs) -> None:
    for split, size in zip(("train", "test"), SIZES.values()):
        pixels, labels = drawn.images(split)
        assert pixels.shape == (size, 3, SIDE, SIDE) and pixels.dtype == np.uint8
        assert labels.shape == (size,) and labels.dtype == np.int64
    task = ImageClassification(drawn, seed=0, batch_size=8, shift=2, flip=False)
    assert task.model_arguments == {"channels": 3, "classes": 62}
    assert task.batch(0)["images"].shape == (8, 3, SIDE, SIDE)


def test_the_configuration_builds_them(tmp_path: Path) -> None:
    source = hydra.utils.instantiate(composed("data=glyphs", f"cache={tmp_path}").data)
    assert source.sizes == {"train": 12_000, "test": 2_000}
    assert source.fingerprint == Glyphs(str(tmp_path / "other")).fingerprint


@pytest.mark.slow
def test_an_image_depends_on_seed_split_and_index_alone(drawn: Glyphs, tmp_path: Path) -> None:
    """Not on the cache, nor on how many others are drawn, nor in what order."""
    again, fewer = small(tmp_path / "again"), small(tmp_path / "fewer", train_size=20, test_size=10)
    for split in ("test", "train"):
        assert np.array_equal(again.images(split).pixels, drawn.images(split).pixels)
        count = len(fewer.images(split).pixels)
        assert np.array_equal(fewer.images(split).pixels, drawn.images(split).pixels[:count])
    other = small(tmp_path / "other", seed=1, train_size=20, test_size=10)
    assert not (other.images("train").pixels == drawn.images("train").pixels[:20]).all(axis=(1, 2, 3)).any()


def test_classes_are_balanced(drawn: Glyphs) -> None:
    for split in ("train", "test"):
        counts = np.bincount(drawn.images(split).labels, minlength=len(CLASSES))
        assert len(counts) == len(CLASSES) == 62 and counts.max() - counts.min() <= 1


def test_no_image_is_in_both_splits_or_twice_in_one(drawn: Glyphs) -> None:
    everything = [image.tobytes() for split in ("train", "test") for image in drawn.images(split).pixels]
    assert len(set(everything)) == len(everything) == sum(SIZES.values())


def test_an_image_shows_the_letter_of_its_class() -> None:
    """Among letters of which one alone has ink, that one's image shows it and the others' do not."""
    empty, solid = Image.new("L", (MASK, MASK)), Image.new("L", (MASK, MASK), 255)
    blank = [[empty] * len(CLASSES)]
    for label in (0, 30, 61):
        for seed in range(5):
            images = {}
            for inked in (None, label):
                letters = [[solid if index == inked else empty for index in range(len(CLASSES))]]
                images[inked] = picture(label, letters, np.random.default_rng(seed))
            assert np.array_equal(images[None], picture(label, blank, np.random.default_rng(seed)))
            middle = slice(12, 20)
            changed = (images[label] != images[None])[middle, middle].any(axis=-1)
            assert changed.mean() > 0.5


def test_a_letter_is_brighter_than_its_background() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        background, ink = colours(generator)
        assert (ink - background) @ (0.299, 0.587, 0.114) >= CONTRAST


def test_every_font_has_every_letter(drawn: Glyphs) -> None:
    """62 different drawings, none of them the box that stands for a missing letter, none cut off."""
    for file in drawn.font_files:
        missing = mask(file, "\uffff").tobytes()
        masks = [mask(file, letter) for letter in CLASSES]
        assert len({drawing.tobytes() for drawing in masks} - {missing}) == len(CLASSES), file.name
        edges = [np.asarray(drawing)[[0, -1]].any() or np.asarray(drawing)[:, [0, -1]].any() for drawing in masks]
        assert not any(edges), file.name


def test_the_fingerprint_is_of_all_that_counts_and_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs, "picture", refuse)
    found = [small(tmp_path).fingerprint, small(tmp_path, seed=1).fingerprint]
    found += [small(tmp_path, train_size=131).fingerprint, small(tmp_path, test_size=63).fingerprint]
    assert found[0] == small(tmp_path / "elsewhere").fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(glyphs, "VERSION", -1)
        found.append(small(tmp_path).fingerprint)
    with monkeypatch.context() as patch:
        patch.setattr(PIL, "__version__", "0.0.0")
        found.append(small(tmp_path).fingerprint)
    other = small(tmp_path)
    font = tmp_path / other.font_files[-1].name
    font.write_bytes(other.font_files[-1].read_bytes() + b"\0")
    other.font_files = [*other.font_files[:-1], font]
    found.append(other.fingerprint)
    assert len(set(found)) == len(found) == 7


def test_images_are_drawn_once(drawn: Glyphs, monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawn.images("test").pixels
    monkeypatch.setattr(glyphs, "picture", refuse)
    assert np.array_equal(small(drawn.cache.parent).images("test").pixels, before)
    with pytest.raises(AssertionError, match="need not"):  # other settings have a file of their own
        small(drawn.cache.parent, seed=1).images("test")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign"])
def test_a_damaged_cache_is_made_anew(damage: str, drawn: Glyphs, tmp_path: Path) -> None:
    expected = drawn.images("train").pixels
    whole = (drawn.cache / drawn.fingerprint).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    data = {"cut": whole[: len(whole) // 2], "empty": b"", "flipped": bytes(flipped), "foreign": b"no archive"}[damage]
    mended = small(tmp_path)
    file = mended.cache / mended.fingerprint
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="is made again"):
        assert np.array_equal(mended.images("train").pixels, expected)
    assert [path.name for path in mended.cache.iterdir()] == [file.name]
    assert file.read_bytes() == whole


def test_missing_fonts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match=r"lacks DejaVuSans\.ttf"):
        small(tmp_path).images("test")

"""Image classification."""

from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, Reading, device_of, random_generator
from tasks.data.images import Images
from tasks.data.source import DataError, ScoredSplit
from tasks.ranges import Share

AT_ONCE = 512  # images per batch in the evaluation


class ImageSource(Protocol):
    """A source of images."""

    name: str
    fingerprint: str

    def images(self, split: str) -> Images: ...


def moments(pixels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, 1, 1) of each channel of pixels (N, C, H, W), divided by 255.

    Computed from the counts of the 256 values, because converting all images to floating point takes over a second.
    """
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in pixels.swapaxes(0, 1)])
    shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1)) + 1e-8
    found = (torch.tensor(array, dtype=torch.float32).view(-1, 1, 1) for array in (mean, deviation))
    return next(found), next(found)


Shift = Annotated[NonNegativeInt, Field(le=1000)]  # pixels


class ImageClassification:
    """Classify images.

    shift: training images are padded by this many pixels and cropped back at a random position. flip: half of them are
    also mirrored. split: the images to score. For validation they are a share `held_out` of the training images, which
    is then not trained on. Pixels are normalised by the mean and standard deviation of each channel of the images that
    are trained on. Raises ValueError for a share that leaves no images, DataError for images of a single class and for
    test images of another size.
    """

    def __init__(
        self,
        data: ImageSource,
        seed: NonNegativeInt,
        batch_size: PositiveInt,
        shift: Shift,
        flip: bool,
        split: ScoredSplit = "test",
        held_out: Share = 0.2,
    ):
        self.seed, self.batch_size, self.shift, self.flip = seed, batch_size, shift, flip
        self.train = data.images("train")
        self.test = data.images("test") if split == "test" else self.hold_out(held_out)
        if len({*self.train.labels.tolist()}) < 2:
            raise DataError(
                f"{data.name} has training images of one class, {self.train.labels[0]}: it needs two or more"
            )
        sizes = ["{} × {}".format(*images.pixels.shape[2:]) for images in (self.train, self.test)]
        if sizes[0] != sizes[1]:
            raise DataError(f"{data.name} has training images of {sizes[0]} pixels and {split} images of {sizes[1]}")
        self.mean, self.deviation = moments(self.train.pixels)
        self.model_arguments = {
            "channels": self.train.pixels.shape[1],
            "classes": int(max(self.train.labels.max(), self.test.labels.max())) + 1,
        }

    def hold_out(self, share: float) -> Images:
        """Remove a share of the training images, the same one for every seed, and return it."""
        if not 0 < share < 1:
            raise ValueError(f"task.held_out must be between 0 and 1 for task.split=validation, not {share:g}")
        order = random_generator(0, 2, 0).permutation(len(self.train.labels))
        count = round(share * len(order))
        held, rest = (Images(*(array[chosen] for array in self.train)) for chosen in (order[:count], order[count:]))
        self.train = rest
        return held

    def normalize(self, pixels: np.ndarray) -> Tensor:
        return (torch.from_numpy(pixels).float() / 255 - self.mean) / self.deviation

    def batch(self, step: int) -> Batch:
        size, count = self.batch_size, len(self.train.labels)
        per_epoch = max(1, count // size)
        epoch, index = divmod(step, per_epoch)
        order = random_generator(self.seed, 0, epoch).permutation(count)
        chosen = order[index * size : (index + 1) * size]
        generator = random_generator(self.seed, 1, step)
        images = self.augment(self.normalize(self.train.pixels[chosen]), generator)
        return {"images": images, "labels": torch.from_numpy(self.train.labels[chosen])}

    def augment(self, images: Tensor, generator: np.random.Generator) -> Tensor:
        rows, _, height, width = images.shape
        if self.shift:
            padded = F.pad(images, [self.shift] * 4)
            top, left = torch.from_numpy(generator.integers(0, 2 * self.shift + 1, (2, rows)))
            y = (top[:, None] + torch.arange(height))[:, :, None]  # (B, H, 1)
            x = (left[:, None] + torch.arange(width))[:, None, :]  # (B, 1, W)
            images = padded[torch.arange(rows)[:, None, None], :, y, x].permute(0, 3, 1, 2)
        if self.flip:
            mirrored = torch.from_numpy(generator.random(rows) < 0.5).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(-1), images)
        return images.contiguous()

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        return F.cross_entropy(model(batch["images"]).float(), batch["labels"]), None

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        losses, right = 0.0, 0
        for start in range(0, len(self.test.labels), AT_ONCE):
            images = self.normalize(self.test.pixels[start : start + AT_ONCE]).to(device_of(model))
            labels = torch.from_numpy(self.test.labels[start : start + AT_ONCE]).to(device_of(model))
            logits = model(images).float()
            losses += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
        return Evaluation({"accuracy": 100 * right / len(self.test.labels), "loss": losses / len(self.test.labels)})

    def readings(self, model: nn.Module) -> list[Reading]:
        return [Reading(AT_ONCE, 1, len(self.test.labels) / AT_ONCE)]

"""Exact properties of all configured position schemes, in float64."""

from functools import cache
from typing import Any

import hydra
import torch
from torch import Tensor, nn

from experiments.config.choices import groups
from experiments.config.composition import compose_unchecked
from models.initialization import initialize
from models.positions import Position
from models.positions.absolute import waves
from models.positions.rotary import Rotary, rotation_matrix
from tasks.base import Evaluation

SENTENCE = "the pig chased the dog"
PREFIX = "once upon a time"
WIDTH, HEADS, LENGTH = 64, 4, 64
FAR = (2, 500 / 512)  # the article's pair of far positions: the second as a share of the trained length


@cache
def decoder(position: str) -> Any:
    """A small decoder in float64 with this scheme and random weights, including the scheme's own."""
    size = [f"model.width={WIDTH}", f"model.heads={HEADS}", "model.layers=2"]
    config = compose_unchecked(["attention=full", f"position={position}", f"trained_length={LENGTH}", *size])
    model = hydra.utils.instantiate(config.model, vocabulary_size=100)
    initialize(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.position.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model.double().requires_grad_(False)


def scores(scheme: Position, embedded: Tensor, to_query: Tensor, to_key: Tensor, positions: Tensor) -> Tensor:
    """The scores (1, HEADS, T, T) of embedded tokens (1, T, WIDTH) at positions (T,), by a query and a key matrix."""
    x = scheme.embed(embedded, positions)
    query, key = (
        scheme.rotate((x @ matrix).view(1, len(positions), HEADS, -1).transpose(1, 2), positions)
        for matrix in (to_query, to_key)
    )
    score = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
    bias = scheme.bias(query, key, positions, positions)
    return score if bias is None else score + bias


def rotary_distance() -> Evaluation:
    """R7: for every scheme, the change of the scores in a sentence by a prefix; for RoPE, what the rotation changes."""
    generator = torch.Generator().manual_seed(0)
    words = SENTENCE.split()
    shift = len(PREFIX.split())
    embedded = torch.randn(1, len(words), WIDTH, generator=generator, dtype=torch.float64)
    to_query, to_key = torch.randn(2, WIDTH, WIDTH, generator=generator, dtype=torch.float64) / WIDTH**0.5

    def at(scheme: Position, offset: int) -> Tensor:
        positions = torch.arange(offset, offset + len(words))
        return scores(scheme, embedded, to_query, to_key, positions).tril()

    metrics, rows = {}, []
    pig, dog = words.index("pig"), words.index("dog")
    for name in groups()["position"]:
        scheme = decoder(name).position
        alone, prefixed = at(scheme, 0), at(scheme, shift)
        metrics[f"score_change/{name}"] = change = float((alone - prefixed).abs().max())
        metrics[f"prefix_matters/{name}"] = float(change > 0.1)
        rows.append(
            {
                "scheme": name,
                f"dog → pig in “{SENTENCE}”": float(alone[0, 0, dog, pig]),
                f"dog → pig in “{PREFIX} {SENTENCE}”": float(prefixed[0, 0, dog, pig]),
            }
        )
    rope = decoder("rope").position
    x = torch.randn(1, HEADS, 100, WIDTH // HEADS, generator=generator, dtype=torch.float64)
    turned = rope.rotate(x, torch.arange(100))
    metrics["norm_change/rope"] = float((turned.norm(dim=-1) - x.norm(dim=-1)).abs().max())
    far = at(rope, 1_000_000) - at(rope, 0)
    metrics["score_change_at_a_million/rope"] = float(far.abs().max())
    metrics["embedding_change/rope"] = float((rope.embed(embedded, torch.arange(len(words))) - embedded).abs().max())
    return Evaluation(metrics, {"scores": rows})


def rotary_matrix() -> Evaluation:
    """R6: the largest difference between the element-wise rotation and the product with the block-diagonal matrix."""
    metrics, rows = {}, []
    for head_width in (32, 64, 128):
        scheme = Rotary(head_width, 1)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 1, 256, head_width, generator=generator, dtype=torch.float64)
        matrices = torch.stack([rotation_matrix(scheme.frequencies(), position) for position in range(256)])
        product = torch.einsum("tij,bhtj->bhti", matrices, x)
        change = float((scheme.rotate(x, torch.arange(256)) - product).abs().max())
        metrics[f"deviation/{head_width}"] = change
        rows.append({"head_width": head_width, "largest_deviation": change})
    return Evaluation(metrics | {"deviation": max(metrics.values())}, {"rotations": rows})


def cached_decoding() -> Evaluation:
    """R8: the largest difference between the logits of decoding from a cache and of reading the whole sequence."""
    tokens = torch.randint(0, 100, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    metrics, rows = {}, []
    for name in groups()["position"]:
        model = decoder(name)
        whole, state, steps = model(tokens)[0], None, []
        for token in tokens.split(1, dim=1):
            logits, state = model(token, state)
            steps.append(logits)
        change = float((torch.cat(steps, dim=1) - whole).abs().max())
        metrics[f"deviation/{name}"] = change
        rows.append({"scheme": name, "largest_deviation": change})
    return Evaluation(metrics | {"deviation": max(metrics.values())}, {"caches": rows})


def similarity(vectors: Tensor, name: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Cosines of position vectors (T, width): of 1 and 2, of two far ones, and the mean over all places by distance."""
    unit = nn.functional.normalize(vectors, dim=1)
    cosines = unit @ unit.T
    near, far = float(cosines[1, 2]), float(cosines[FAR[0], int(FAR[1] * len(vectors))])
    rows = [{"positions": name, "x": k, "value": float(cosines.diagonal(k).mean())} for k in range(1, len(vectors))]
    return {"similarity/near": near, "similarity/far": far, "similarity/near_minus_far": near - far}, rows


def position_similarity() -> Evaluation:
    """R12: the cosine of two sinusoidal position vectors, of the width of BERT, by their distance."""
    metrics, rows = similarity(waves(torch.arange(512), 768), "sinusoidal")
    return Evaluation(metrics, {"similarities": rows})


def three_apart() -> Evaluation:
    """R13: by how much the score of the same two tokens, three apart, differs over the places of a sequence."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 4, WIDTH, generator=generator, dtype=torch.float64)
    to_query, to_key = torch.randn(2, WIDTH, WIDTH, generator=generator, dtype=torch.float64) / WIDTH**0.5
    metrics = {}
    for name in groups()["position"]:
        scheme = decoder(name).position
        found = [
            scores(scheme, tokens, to_query, to_key, torch.arange(start, start + 4))[0, :, 3, 0]
            for start in range(LENGTH - 3)
        ]
        metrics[f"spread/{name}"] = spread = float((torch.stack(found).amax(0) - torch.stack(found).amin(0)).max())
        metrics[f"place_matters/{name}"] = float(spread > 0.1)
    rows = [{"scheme": name, "spread": metrics[f"spread/{name}"]} for name in groups()["position"]]
    return Evaluation(metrics, {"three_apart": rows})


def rotary_reach() -> Evaluation:
    """R9: the mean score of a query and an equal key by distance m, Σ cos(m θ) / (d / 2), for two bases at d = 128.

    Men et al. 2024 define the reach of a base as the first distance with a negative score, about 6.97 · base^0.614.
    """
    distance = torch.arange(2**17, dtype=torch.float64)
    metrics, rows = {}, []
    shown = sorted({round(2 ** (i / 8)) for i in range(17 * 8)})
    for base in (10_000, 500_000):
        frequencies = Rotary(128, 1, base).frequencies()
        score = torch.stack([torch.cos(distance * frequency) for frequency in frequencies]).mean(dim=0)
        metrics[f"first_negative/{base}"] = float((score < 0).nonzero()[0])
        rows += [{"base": f"{base:,}", "x": at, "value": float(score[at])} for at in shown]
    metrics["times_further"] = metrics["first_negative/500000"] / metrics["first_negative/10000"]
    return Evaluation(metrics, {"reach": rows})

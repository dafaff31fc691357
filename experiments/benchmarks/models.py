"""Speed of our models in training and decoding; each comparison measures its parts alternately in one process."""

import statistics
from collections.abc import Callable
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from experiments.config.compose import compose
from experiments.measurements.timing import against, interleaved
from experiments.training.loop import parameter_groups
from models.initialization import initialize

WIDTH, LENGTH, SEGMENT, BATCH, VOCABULARY = 256, 1024, 128, 8, 1024


REPEATS = 7


CACHED, DECODED = 8192, 16  # tokens in the cache, and tokens decoded after them


def decoder(*choices: str) -> tuple[DictConfig, Any]:
    """The configuration and the model of the default decoder at width 256, with these overrides."""
    config = compose([*choices, f"model.width={WIDTH}", f"segment_length={SEGMENT}", f"trained_length={LENGTH}"])
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, seed=0)
    return config, model


def training_step(precision: str, *choices: str, length: int = LENGTH) -> tuple[Callable[[], None], int]:
    """A training step of a decoder with these overrides, and its number of floating-point operations."""
    config, model = decoder(*choices)
    optimizer = hydra.utils.instantiate(config.optimizer)(parameter_groups(model, config.training.groups))
    tokens = torch.randint(0, VOCABULARY, (BATCH, length + 1), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits, _ = model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
        optimizer.step()
        optimizer.zero_grad()

    # 6 operations per parameter and token; attention: 2 products over half of all pairs, once forward, twice backward.
    reach = config.attention.get("segment_length", config.attention.get("window", length))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return step, BATCH * length * (6 * parameters + 6 * config.model.layers * reach * WIDTH)


def activation_step(name: str, precision: str) -> Callable[[], None]:
    """Forward and backward pass of an activation function alone."""
    function = hydra.utils.instantiate(compose([f"activation={name}"]).activation)(4 * WIDTH)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, gradient = torch.randn(2, BATCH * LENGTH, 4 * WIDTH).to(dtype)
    x.requires_grad_()
    return lambda: torch.autograd.backward(function(x), gradient)


def matrix_product(precision: str, size: int = 2048) -> tuple[Callable[[], object], int]:
    """A product of two square matrices, and its number of floating-point operations."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(2, size, size).to(dtype)
    return lambda: torch.mm(left, right), 2 * size**3


def attention_table(console: Console, precision: str) -> Table:
    """Training speed with every attention mechanism, relative to a matrix product and to full attention."""
    names = ("full", "window", "transformer_xl", "infini_linear", "infini_delta")
    product, product_operations = matrix_product(precision)
    steps = {name: training_step(precision, f"attention={name}") for name in names}
    calls: dict[str, Callable[[], object]] = {name: step for name, (step, _) in steps.items()}
    times = interleaved({"product": product, **calls}, REPEATS)
    peak = product_operations / statistics.median(times["product"])
    console.print(f"matrix product {peak / 1e9:,.0f} GFLOP/s")
    title = f"training at width {WIDTH}, {BATCH} × {LENGTH} tokens, segments of {SEGMENT}; median of {REPEATS} [range]"
    table = Table("attention", "tokens/s", "GFLOP/s", "% of matrix product", "tokens/s relative to full", title=title)
    for name, (_, operations) in steps.items():
        median = statistics.median(times[name])
        speed, rate = f"{BATCH * LENGTH / median:,.0f}", f"{operations / median / 1e9:,.0f}"
        table.add_row(name, speed, rate, f"{operations / median / peak:.0%}", against(times["full"], times[name]))
    return table


def activation_table(precision: str) -> Table:
    """Speed of every compared activation function relative to SiLU, in training and alone."""
    names = ("silu", "swish", "relu", "gelu", "mish", "prelu")
    training = interleaved({name: training_step(precision, f"activation={name}")[0] for name in names}, REPEATS)
    alone = interleaved({name: activation_step(name, precision) for name in names}, REPEATS)
    table = Table("activation", "training, relative to SiLU", "alone, relative to SiLU")
    for name in names:
        table.add_row(name, against(training[name], training["silu"]), against(alone[name], alone["silu"]))
    return table


def position_table(precision: str) -> Table:
    """Training speed with every position scheme, relative to none."""
    names = ("none", "learned", "sinusoidal", "rope", "alibi", "relative_bias", "relative_shaw", "relative_xl")
    steps = {name: training_step(precision, f"position={name}", length=512)[0] for name in names}
    times = interleaved(steps, 2 * REPEATS)
    title = f"training at width {WIDTH}, {BATCH} × 512 tokens, full attention"
    table = Table("position", "step time relative to none", title=title)
    for name in names:
        table.add_row(name, against(times[name], times["none"]))
    return table


@torch.no_grad()
def decoding_table(precision: str) -> Table:
    """Decoding speed from a cache: our decoder with rotary positions, and transformers' Llama of the same size."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    _, ours = decoder("position=rope", "feedforward=glu", "activation=silu")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=ours.blocks[0].feedforward.down.in_features,
        num_hidden_layers=len(ours.blocks),
        num_attention_heads=ours.blocks[0].attention.heads,
        max_position_embeddings=2 * CACHED,
        tie_word_embeddings=True,
    )
    llama = LlamaForCausalLM(config).eval()
    text, token = torch.zeros(1, CACHED, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
    cache = DynamicCache(config=config)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        llama(text, past_key_values=cache)
        _, text_state = ours(text)

    def decode_ours() -> None:
        state = text_state
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(DECODED):
                _, state = ours(token, state)

    def decode_llama() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(DECODED):
                llama(token, past_key_values=cache)
        cache.crop(-DECODED)

    times = interleaved({"ours": decode_ours, "llama": decode_llama}, 2 * REPEATS)
    title = f"decoding after {CACHED:,} tokens, 2 layers"
    table = Table("decoding", "ms per token", "relative to Llama", title=title)
    for name in times:
        median = statistics.median(times[name]) / DECODED
        table.add_row(name, f"{1000 * median:.2f}", against(times[name], times["llama"]))
    return table

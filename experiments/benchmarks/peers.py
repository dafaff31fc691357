"""`make bench`, second part: our models compared with public implementations, with equal parameters and tokens.

The `bench` extra installs them: lucidrains' infini-transformer-pytorch and x-transformers, and transformers' Llama.
"""

import contextlib
import importlib.metadata
import io
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import hydra
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.config.compose import compose
from experiments.measurements.tensor_memory import peak_bytes
from experiments.measurements.timing import against, interleaved
from models.generation import read_prompt
from models.initialization import initialize

VOCABULARY, LAYERS, HEADS = 1024, 2, 4
TOKENS = 8192  # per training step
PROMPT, DECODED = 1024, 32
PEERS = ("infini-transformer-pytorch", "x-transformers", "transformers")
Step = Callable[[], object]


def ours(width: int, segment: int, *choices: str) -> Any:
    """Our decoder with GEGLU, like the peers."""
    size = [f"model.width={width}", f"model.layers={LAYERS}", f"model.heads={HEADS}", f"segment_length={segment}"]
    config = compose([*size, "feedforward=glu", "activation=gelu", *choices])
    model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
    initialize(model, seed=0)
    return model


def lucidrains_infini(width: int, segment: int, **wrapping: int) -> Any:
    """infini-transformer-pytorch with as many parameters as ours: its output layer is tied to its embedding."""
    from infini_transformer_pytorch import InfiniTransformer, InfiniTransformerWrapper

    model = InfiniTransformer(
        num_tokens=VOCABULARY, dim=width, depth=LAYERS, dim_head=width // HEADS, heads=HEADS, use_mem_delta_rule=True
    )
    model.to_logits.weight = model.token_emb.weight
    return InfiniTransformerWrapper(model, segment_length=segment, **wrapping)


def lucidrains_xl(width: int, segment: int) -> nn.Module:
    """x-transformers' Transformer-XL with rotary positions; its memory is as long as a segment."""
    from x_transformers import Decoder, TransformerWrapper, XLAutoregressiveWrapper

    layers = Decoder(
        dim=width, depth=LAYERS, heads=HEADS, attn_dim_head=width // HEADS, rotary_pos_emb=True, ff_glu=True,
        ff_mult=4 * 2 / 3, attn_flash=True, use_rmsnorm=True,
    )  # fmt: skip
    net = TransformerWrapper(
        num_tokens=VOCABULARY, max_seq_len=segment, max_mem_len=segment, attn_layers=layers, tie_embedding=True,
        use_abs_pos_emb=False,
    )  # fmt: skip
    return XLAutoregressiveWrapper(net)


def llama(width: int, intermediate: int) -> nn.Module:
    """transformers' Llama, by default with torch's fused attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=intermediate, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


class NanoGPT(nn.Module):
    """A GPT as nanoGPT's README and GPT-2 describe it: learned positions, LayerNorm and GELU, all with biases, one
    product for queries, keys and values, torch's fused attention, tied embeddings."""

    def __init__(self, width: int, length: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm_1": nn.LayerNorm(width),
                    "attention": nn.Linear(width, 3 * width),
                    "output": nn.Linear(width, width),
                    "norm_2": nn.LayerNorm(width),
                    "mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
                }
            )
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            parts = block["attention"](block["norm_1"](x)).chunk(3, dim=-1)  # type: ignore[index]
            query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + block["output"](mixed.transpose(1, 2).flatten(2))  # type: ignore[index]
            x = x + block["mlp"](block["norm_2"](x))  # type: ignore[index]
        return (F.linear(self.norm(x), self.tokens.weight),)


def text(length: int, rows: int | None = None) -> Tensor:
    """Random tokens, (rows, length + 1), by default TOKENS in all: each row has one more token to predict."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (rows or TOKENS // length, length + 1), generator=generator)


def training(model: nn.Module, loss: Callable[[], Tensor | None], precision: str) -> Step:
    """A step that computes loss and gradients. `loss` returns None if it runs the backward pass itself."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = loss()
        if value is not None:
            value.backward()
        model.zero_grad()

    return step


def next_token(model: nn.Module, tokens: Tensor, precision: str) -> Step:
    """A step on the next-token loss, for a model that reads whole sequences."""

    def loss() -> Tensor:
        output = model(tokens[:, :-1])
        logits = output[0] if isinstance(output, tuple) else output.logits
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return training(model, loss, precision)


def training_lucidrains(wrapper: nn.Module, tokens: Tensor, precision: str) -> Step:
    """A step of lucidrains' wrapper: its own loop over segments, with truncated backpropagation."""

    def loss() -> None:
        wrapper(tokens, backward=True)

    return training(wrapper, loss, precision)


def compare(table: Table, title: str, steps: dict[str, Step], models: dict[str, nn.Module], repeats: int) -> None:
    """Measure the steps in turn and add a row for each; the first one is ours."""
    times = interleaved(steps, repeats)
    memory = {name: peak_bytes(step) for name, step in steps.items()}
    ours = next(iter(steps))
    for name in steps:
        parameters = f"{sum(parameter.numel() for parameter in models[name].parameters()):,}"
        speed, size = f"{TOKENS / statistics.median(times[name]):,.0f}", f"{memory[name] / 2**20:,.0f}"
        ratios = ("", "") if name == ours else (against(times[name], times[ours]), f"{memory[ours] / memory[name]:.2f}")
        table.add_row(title if name == ours else "", name, parameters, speed, size, *ratios)


def training_table(title: str) -> Table:
    """An empty table for `compare`."""
    columns = ("", "", "parameters", "tokens/s", "peak MiB", "our speed-up", "our memory, relative")
    return Table(*columns, title=f"{title}, {TOKENS:,} tokens per step, {LAYERS} layers")


def infini_table(precision: str, repeats: int) -> Table:
    """Training of Infini-attention (delta): ours, and the peer with full gradients, with truncation, and as it is."""
    table = training_table("Infini-attention (width, segment, length)")
    for width, segment, length in ((128, 64, 1024), (256, 128, 1024), (256, 64, 4096), (512, 128, 4096)):
        tokens, whole = text(length), length // segment
        model, peer = ours(width, segment, "attention=infini_delta"), lucidrains_infini(width, segment)
        untruncated = lucidrains_infini(width, segment, detach_mems_every_num_segments=whole)
        steps = {
            f"ours, {precision}": next_token(model, tokens, precision),
            f"peer, {precision}, gradient through all": training_lucidrains(untruncated, tokens, precision),
            f"peer, {precision}, through 2 segments": training_lucidrains(peer, tokens, precision),
            "peer, out of the box": training_lucidrains(peer, tokens, "fp32"),
        }
        models = dict(zip(steps, (model, untruncated, peer, peer)))
        compare(table, f"{width}, {segment}, {length:,}", steps, models, repeats)
    return table


def decoder_table(precision: str, repeats: int) -> Table:
    """Training of Transformer-XL and of the decoder with full attention."""
    table = training_table("at width 256, rows of 1,024")
    tokens = text(1024)
    model, peer = ours(256, 128, "attention=transformer_xl"), lucidrains_xl(256, 128)
    steps = {"ours": next_token(model, tokens, precision)}
    steps["x-transformers"] = training(peer, lambda: peer(tokens), precision)
    compare(table, "Transformer-XL", steps, {"ours": model, "x-transformers": peer}, repeats)
    model = ours(256, 128, "attention=full", "activation=silu")
    peer = llama(256, model.blocks[0].feedforward.down.in_features)
    steps = {"ours": next_token(model, tokens, precision)}
    steps["transformers' Llama"] = next_token(peer, tokens, precision)
    compare(table, "plain decoder", steps, {"ours": model, "transformers' Llama": peer}, repeats)
    chosen = ("attention=full", "feedforward=mlp", "position=learned", "position.max_length=1024")
    model, gpt = ours(256, 128, *chosen), NanoGPT(256, 1024)
    steps = {"ours": next_token(model, tokens, precision), "nanoGPT's block": next_token(gpt, tokens, precision)}
    compare(table, "MLP, learned positions", steps, {"ours": model, "nanoGPT's block": gpt}, repeats)
    return table


@torch.no_grad()
def streaming_table(precision: str, repeats: int) -> Table:
    """Decoding with a state of constant size, after 1,024 tokens (ours and the peer) and after 1,048,576 (ours)."""
    model, peer = ours(256, 128, "attention=infini_delta"), lucidrains_infini(256, 128)
    tokens = text(PROMPT)[:1, :PROMPT]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        _, near = read_prompt(model, tokens)
        _, far = read_prompt(model, tokens.repeat(1, 1024))

    def decode(state: Any) -> Step:
        def call() -> None:
            carried = state
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                for _ in range(DECODED):
                    _, carried = model(tokens[:, :1], carried)

        return call

    def decode_peer() -> None:
        quiet = contextlib.redirect_stderr(io.StringIO())  # its progress bar
        with quiet, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            peer.generate(prompt=tokens, seq_len=PROMPT + DECODED)

    calls: dict[str, Step] = {
        "ours after 1,024": decode(near),
        "ours after 1,048,576": decode(far),
        "infini-transformer-pytorch after 1,024": decode_peer,
    }
    times = interleaved(calls, repeats)
    table = Table("decoding", "ms per token", "relative to ours after 1,024", title="decoding, width 256")
    for name in calls:
        median = statistics.median(times[name]) / DECODED
        table.add_row(name, f"{1000 * median:.2f}", against(times[name], times["ours after 1,024"]))
    return table


def tables(console: Console, precision: str, repeats: int) -> list[Callable[[], Table]]:
    """What measures each comparison; prints how to install the peers, and returns nothing, if they are missing."""
    try:
        versions = {name: importlib.metadata.version(name) for name in PEERS}
    except importlib.metadata.PackageNotFoundError as error:
        console.print(f"the peers are not installed ({error}): pip install -e '.[bench]' -c constraints.txt")
        return []
    console.print("peers: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return [partial(table, precision, repeats) for table in (decoder_table, infini_table, streaming_table)]

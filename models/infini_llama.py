"""Infini-attention in a Llama of transformers: its weights kept, a gate per query head added."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaRotaryEmbedding

from models.attention.infini import Infini, InfiniState
from models.carried import StateLayer, check_unpadded, state_layer
from models.generation import generate
from models.positions import Position
from models.positions.rotary import Turn
from models.transformer import DecoderState


class InfiniLlamaConfig(LlamaConfig):
    """A Llama's configuration and that of its memory; see models.attention.infini.Infini."""

    model_type = "infini_llama"
    segment_length: int = 2048
    memory_update: Literal["linear", "delta"] = "delta"  # `update` is a method of every configuration
    initial_gate: float = 0.0


class LlamaRotary(Position):
    """A Llama's own rotary embedding, with whatever scaling it has, as a position scheme."""

    def __init__(self, rotary: LlamaRotaryEmbedding, width: int, heads: int):
        super().__init__(width, heads)
        self.rotary = rotary
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None  # positions, their cos and their sin

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        if self.kept is None or self.kept[0] is not positions or self.kept[1].dtype != x.dtype:
            cos, sin = (wave[0].chunk(2, dim=-1)[0] for wave in self.rotary(x, positions[None]))  # (T, d / 2)
            self.kept = positions, cos, sin
        return Turn.apply(x, *self.kept[1:])


class InfiniLlamaAttention(Infini):
    """Infini-attention with the projections of a Llama's layer, under the names they have there.

    The memory is one per key-value head and sees neither positions nor padding; the rotary embedding serves the local
    attention alone.
    """

    def __init__(self, original: LlamaAttention, position: LlamaRotary, config: InfiniLlamaConfig):
        heads, shared = config.num_attention_heads, config.num_key_value_heads
        with torch.device("meta"):  # projections of its own would take memory for nothing
            super().__init__(heads * original.head_dim, heads, config.segment_length, config.memory_update, 0.0, shared)
        del self.query_key_value, self.output
        self.q_proj, self.k_proj, self.v_proj = original.q_proj, original.k_proj, original.v_proj
        self.o_proj = original.o_proj
        weight = self.q_proj.weight
        self.gate = nn.Parameter(torch.full((heads,), config.initial_gate, dtype=weight.dtype, device=weight.device))
        self.layer_idx = original.layer_idx
        self.position = position

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (
            projection(x).unflatten(2, (-1, self.head_width)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return query, key, value

    def merge(self, y: Tensor) -> Tensor:
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def forward(  # type: ignore[override]  # as a LlamaDecoderLayer calls it
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """The output (B, T, width) for hidden_states of that shape; the cache carries the state."""
        check_unpadded(attention_mask)
        layer = StateLayer() if past_key_values is None else state_layer(past_key_values, self.layer_idx)
        state: InfiniState | None = layer.state
        y, state = super().forward(hidden_states, self.position, state)
        layer.carry(state, hidden_states.shape[1])
        return y, None


class InfiniLlamaModel(LlamaModel):
    """The part of the next one that has no vocabulary to score."""

    config: InfiniLlamaConfig
    config_class = InfiniLlamaConfig

    def __init__(self, config: InfiniLlamaConfig):
        super().__init__(config)
        put_infini(self, config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, InfiniLlamaAttention):
            init.constant_(module.gate, self.config.initial_gate)  # where a folder has no gates


class InfiniLlamaForCausalLM(LlamaForCausalLM):
    """A Llama whose layers all attend by Infini-attention.

    Raises ValueError for what its attention cannot do: dropout, and rotary scaling that changes with the length.
    """

    config: InfiniLlamaConfig
    config_class = InfiniLlamaConfig
    _is_stateful = True  # a state cannot be taken back to where it was: no assisted generation

    def __init__(self, config: InfiniLlamaConfig):
        LlamaPreTrainedModel.__init__(self, config)  # then as a LlamaForCausalLM, with another model inside
        self.model = InfiniLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def put_infini(llama: LlamaModel, config: InfiniLlamaConfig) -> None:
    """Replace the attention of each layer. Raises ValueError; see InfiniLlamaForCausalLM."""
    scaling = (config.rope_parameters or {}).get("rope_type")
    if scaling in ("dynamic", "longrope"):
        raise ValueError(f"rotary positions of type {scaling} change with the length, and a segment's must not")
    if config.attention_dropout:
        raise ValueError(f"Infini-attention knows no attention dropout; the Llama's is {config.attention_dropout}")
    if config.memory_update not in ("linear", "delta"):
        raise ValueError(f"the update of a memory is linear or delta, not {config.memory_update}")
    if config.segment_length < 1:
        raise ValueError(f"a segment must hold at least one token, not {config.segment_length}")
    position = LlamaRotary(llama.rotary_emb, config.hidden_size, config.num_attention_heads)
    for layer in llama.layers:
        assert isinstance(layer, LlamaDecoderLayer)
        layer.self_attn = InfiniLlamaAttention(layer.self_attn, position, config)  # type: ignore[assignment]


def add_infini(
    llama: LlamaForCausalLM,
    segment_length: int,
    update: Literal["linear", "delta"] = "delta",
    initial_gate: float = 0.0,
) -> InfiniLlamaForCausalLM:
    """A Llama with Infini-attention in every layer, to be trained further (Munkhdalai et al. 2024, section 4.2).

    Its weights are those of `llama`, the same parameters, and new is one gate per layer and query head. `llama` itself
    is changed and not to be used any more. Raises ValueError; see InfiniLlamaForCausalLM.
    """
    if type(llama) is not LlamaForCausalLM:
        raise ValueError(f"Infini-attention is put into a LlamaForCausalLM, not into a {type(llama).__name__}")
    known = {name: value for name, value in llama.config.to_dict().items() if name != "model_type"}
    memory = {"segment_length": segment_length, "memory_update": update, "initial_gate": initial_gate}
    config = InfiniLlamaConfig(**{**known, **memory})
    with torch.device("meta"):
        model = InfiniLlamaForCausalLM(config)
    put_infini(llama.model, config)
    for name, part in llama.model.named_children():
        setattr(model.model, name, part)
    model.lm_head, model.generation_config = llama.lm_head, llama.generation_config
    return model.train(llama.training)


class LlamaDecoder(nn.Module):
    """A Llama with Infini-attention behind the calls of a decoder of ours: what the loop trains and tasks judge."""

    limit = None  # the longest sequence it is defined for

    def __init__(self, llama: InfiniLlamaForCausalLM):
        super().__init__()
        self.llama = llama

    def initial_state(self, batch_size: int) -> DecoderState:
        """The state before the first token of `batch_size` sequences."""
        weight = self.llama.model.embed_tokens.weight
        x = weight.new_zeros(batch_size, 0, weight.shape[1])
        layers: list[Any] = [layer.self_attn for layer in self.llama.model.layers]
        return DecoderState(torch.tensor(0), tuple(attention.initial_state(x) for attention in layers))

    def forward(
        self, tokens: Tensor, state: DecoderState | None = None, target: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Logits, and the state after them, for tokens and target as `models.transformer.Decoder` takes them."""
        state = state or self.initial_state(len(tokens))
        if target is not None:
            tokens = torch.cat([tokens, target[:, :-1]], dim=1)
        cache = Cache(layers=[StateLayer(layer, int(state.seen)) for layer in state.layers])
        scored = 0 if target is None else target.shape[1]  # 0: all of them
        logits = self.llama(tokens, past_key_values=cache, logits_to_keep=scored).logits
        layers = tuple(layer.state for layer in cache.layers)  # type: ignore[union-attr]
        return logits, DecoderState(torch.tensor(cache.get_seq_length()), layers)

    def answer(self, source: Tensor, steps: int, end: int | None = None) -> Tensor:
        """The most likely continuation (B, up to `steps`) of source (B, T), token by token, to `end` at the latest."""
        return generate(self, source, steps, end=end)

"""Infini-attention in a Llama of transformers: keeps the Llama's weights and adds one gate per query head."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaRotaryEmbedding

from models.attention.infini import Infini, InfiniState
from models.generation import check_rows, generate
from models.positions import Position
from models.positions.rotary import Turn
from models.state_cache import StateLayer, check_unpadded, state_layer
from models.transformer import DecoderState


class InfiniLlamaConfig(LlamaConfig):
    """A Llama's configuration with the settings of its memory; see models.attention.infini.Infini."""

    model_type = "infini_llama"
    segment_length: int = 2048
    memory_update: Literal["linear", "delta"] = "delta"  # `update` is a method of every configuration
    initial_gate: float = 0.0


class LlamaRotary(Position):
    """A Llama's own rotary embedding, with its scaling, as a position scheme."""

    def __init__(self, rotary: LlamaRotaryEmbedding, width: int, heads: int):
        super().__init__(width, heads)
        self.rotary = rotary
        self.cached: tuple[Tensor, Tensor, Tensor] | None = None  # positions, their cos and their sin

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        if self.cached is None or self.cached[0] is not positions or self.cached[1].dtype != x.dtype:
            cos, sin = (wave[0].chunk(2, dim=-1)[0] for wave in self.rotary(x, positions[None]))  # (T, d / 2)
            self.cached = positions, cos, sin
        return Turn.apply(x, *self.cached[1:])


class InfiniLlamaAttention(Infini):
    """Infini-attention with the projections of a Llama layer, under the same names.

    There is one memory per key-value head. The rotary embedding applies only to local attention; padding is not
    supported.
    """

    def __init__(self, original: LlamaAttention, position: LlamaRotary, config: InfiniLlamaConfig):
        heads, shared = config.num_attention_heads, config.num_key_value_heads
        with torch.device("meta"):  # its own projections are deleted below and should take no memory
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
        """The output (B, T, width) for hidden_states (B, T, width); the state is in the cache.

        Raises ValueError for padding, and for a cache of another number of sequences.
        """
        check_unpadded(attention_mask)
        layer = StateLayer() if past_key_values is None else state_layer(past_key_values, self.layer_idx)
        state: InfiniState | None = layer.state
        check_rows(state, hidden_states)
        y, state = super().forward(hidden_states, self.position, state)
        layer.advance(state, hidden_states.shape[1])
        return y, None


class InfiniLlamaModel(LlamaModel):
    """InfiniLlamaForCausalLM without the output layer."""

    config: InfiniLlamaConfig
    config_class = InfiniLlamaConfig

    def __init__(self, config: InfiniLlamaConfig):
        super().__init__(config)
        put_infini(self, config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, InfiniLlamaAttention):
            init.constant_(module.gate, self.config.initial_gate)  # if the loaded weights have no gates


class InfiniLlamaForCausalLM(LlamaForCausalLM):
    """A Llama with Infini-attention in all layers.

    Raises ValueError for attention dropout, for rotary scaling that depends on the length, and for invalid settings.
    """

    config: InfiniLlamaConfig
    config_class = InfiniLlamaConfig
    _is_stateful = True  # the state cannot be rolled back: no assisted generation

    def __init__(self, config: InfiniLlamaConfig):
        LlamaPreTrainedModel.__init__(self, config)  # then like LlamaForCausalLM.__init__, with another inner model
        self.model = InfiniLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def put_infini(llama: LlamaModel, config: InfiniLlamaConfig) -> None:
    """Replace the attention of each layer. Raises ValueError; see InfiniLlamaForCausalLM."""
    scaling = (config.rope_parameters or {}).get("rope_type")
    if scaling in ("dynamic", "longrope"):
        raise ValueError(f"rope_type={scaling} depends on the length, which Infini-attention does not support")
    if config.attention_dropout:
        raise ValueError(
            f"Infini-attention has no attention dropout: set attention_dropout={config.attention_dropout} to 0"
        )
    if config.memory_update not in ("linear", "delta"):
        raise ValueError(f"memory_update must be linear or delta, not {config.memory_update}")
    if config.segment_length < 1:
        raise ValueError(f"segment_length must be at least one token, not {config.segment_length}")
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
    """A Llama with Infini-attention in every layer, for continued training (Munkhdalai et al. 2024, section 4.2).

    It shares the parameters of `llama` and adds one gate per layer and query head. `llama` is modified; do not use it
    afterwards. Raises ValueError; see InfiniLlamaForCausalLM.
    """
    if type(llama) is not LlamaForCausalLM:
        raise ValueError(f"Infini-attention can be added to a LlamaForCausalLM, not to a {type(llama).__name__}")
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
    """A Llama with Infini-attention, with the interface of `models.transformer.Decoder`."""

    limit = None  # no longest sequence

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
        """Logits and the next state; see `models.transformer.Decoder`."""
        state = state or self.initial_state(len(tokens))
        if target is not None:
            tokens = torch.cat([tokens, target[:, :-1]], dim=1)
        cache = Cache(layers=[StateLayer(layer, int(state.seen)) for layer in state.layers])
        scored = 0 if target is None else target.shape[1]  # 0: all tokens
        logits = self.llama(tokens, past_key_values=cache, logits_to_keep=scored).logits
        layers = tuple(layer.state for layer in cache.layers)  # type: ignore[union-attr]
        return logits, DecoderState(torch.tensor(cache.get_seq_length()), layers)

    def answer(self, source: Tensor, steps: int, end: int | None = None) -> Tensor:
        """Generate at most `steps` tokens greedily after source (B, T), up to `end`: (B, ≤ steps)."""
        return generate(self, source, steps, end=end)

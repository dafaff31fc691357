"""The bridge to transformers: our decoders as a PreTrainedModel.

`import models.pretrained` makes AutoModelForCausalLM know them, and Llamas with Infini-attention.
`python -m models.pretrained RUN_FOLDER FOLDER` writes a finished run's decoder and tokenizer for from_pretrained.
"""

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from models.carried import StateLayer, check_unpadded, state_layer
from models.generation import read_prompt
from models.infini_llama import InfiniLlamaConfig, InfiniLlamaForCausalLM, add_infini

__all__ = ["DecoderConfig", "DecoderForCausalLM", "add_infini", "export", "save"]

PACKAGES = ("models.", "torch.nn.")  # whose modules a saved model may be made of
SPECIAL = {"bos_token": "<document>", "eos_token": "<end>", "pad_token": "<document>"}  # of every vocabulary of ours


class DecoderConfig(PreTrainedConfig):
    """What a decoder is made of: `model` of a run's config.yaml, as it stands there."""

    model_type = "reproduction_decoder"
    model: dict[str, Any] | None = None
    vocab_size: int = 0
    use_cache: bool = True
    tie_word_embeddings: bool = False  # they are one table in the decoder itself


class DecoderForCausalLM(PreTrainedModel, GenerationMixin):
    """One of our decoders behind the calls of transformers; its carried state is the cache.

    Raises ValueError for a configuration that names anything but modules of ours and of torch.nn, or no decoder.
    """

    config: DecoderConfig
    config_class = DecoderConfig
    _is_stateful = True  # a state cannot be taken back to where it was: no assisted generation

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.decoder: Any = build(config.model, config.vocab_size)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` makes its own

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.embedding = value

    def get_output_embeddings(self) -> None:
        return None  # the same as those of the input

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """Logits for input_ids (B, T) that follow what the cache has seen; with labels (B, T) also the mean loss.

        Labels are shifted here, and -100 is left out, as everywhere in transformers. logits_to_keep: only those of so
        many last tokens; for one, a long prompt is read in pieces. Raises ValueError for padding.
        """
        check_unpadded(attention_mask)
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = Cache(layers=[StateLayer()])
        layer = StateLayer() if past_key_values is None else state_layer(past_key_values, 0)
        if logits_to_keep == 1 and labels is None:
            last, state = read_prompt(self.decoder, input_ids, state=layer.state)
            logits = last[:, None]
        else:
            logits, state = self.decoder(input_ids, layer.state)
            logits = logits[:, -logits_to_keep:]
        layer.carry(state, input_ids.shape[1])
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)


AutoConfig.register(DecoderConfig.model_type, DecoderConfig)
AutoModelForCausalLM.register(DecoderConfig, DecoderForCausalLM)
AutoConfig.register(InfiniLlamaConfig.model_type, InfiniLlamaConfig)
AutoModelForCausalLM.register(InfiniLlamaConfig, InfiniLlamaForCausalLM)


def build(settings: Any, vocabulary_size: int) -> nn.Module:
    """The decoder that plain settings describe. Raises ValueError; see DecoderForCausalLM."""
    if not isinstance(settings, dict) or "_target_" not in settings:
        raise ValueError("a saved decoder says what it is made of under `model`, and this one does not")
    check_targets(settings)
    try:
        model = hydra.utils.instantiate(settings, vocabulary_size=vocabulary_size)
    except hydra.errors.InstantiationException as error:
        raise ValueError(" ".join(str(error.__cause__ or error).split())) from error
    if not hasattr(model, "initial_state"):
        raise ValueError(f"{type(model).__name__} carries no state: it is not a decoder")
    return model


def check_targets(node: Any) -> None:
    """Raise ValueError where settings name anything but module classes of ours and of torch.nn.

    A configuration comes with a folder from anywhere. Text that is computed as it is read could name anything.
    """
    if isinstance(node, str) and "${" in node:
        raise ValueError(f"a saved model is made of plain values, and {node!r} is none")
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        found = hydra.utils.get_object(target) if str(target).startswith(PACKAGES) else None
        ours = inspect.isclass(found) and issubclass(found, nn.Module) and f"{found.__module__}.".startswith(PACKAGES)
        if not ours:
            raise ValueError(f"a saved model is made of modules of ours and of torch.nn, and {target} is none")
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(part)


def save(decoder: Any, settings: dict[str, Any], folder: str | Path) -> None:
    """Write a decoder that was built from these settings to a folder for from_pretrained."""
    with torch.device("meta"):
        model = DecoderForCausalLM(DecoderConfig(model=settings, vocab_size=decoder.embedding.num_embeddings))
    model.decoder = decoder
    model.save_pretrained(folder)


def export(run_folder: str | Path, folder: str | Path) -> None:
    """Write the decoder that a finished run has trained to a folder for from_pretrained, its tokenizer beside it.

    A run on tokens that stand for no text, or one from before tokenizers were recorded, has none.
    Raises ValueError or OSError if the run is not finished, has trained no decoder, or has lost its checkpoint.
    """
    run = Path(run_folder)
    if not (run / "status.json").exists() or json.loads((run / "status.json").read_text())["status"] != "finished":
        raise ValueError(f"{run} is not the folder of a finished run")
    settings = yaml.safe_load((run / "config.yaml").read_text())["model"]
    prefix = "model/"
    try:
        with safe_open(run / "checkpoint.safetensors", framework="pt") as stored:
            names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118, not a dict
            weights = {name.removeprefix(prefix): stored.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"the checkpoint of {run} is damaged ({error})") from error
    if "embedding.weight" not in weights:
        raise ValueError(f"{run} has trained no decoder")
    decoder = build(settings, vocabulary_size=len(weights["embedding.weight"]))
    decoder.load_state_dict(weights)
    save(decoder, settings, folder)
    if (run / "tokenizer.json").exists():
        PreTrainedTokenizerFast(tokenizer_file=str(run / "tokenizer.json"), **SPECIAL).save_pretrained(folder)


def main(arguments: Sequence[str]) -> int:
    """Export what the arguments say; returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m models.pretrained RUN_FOLDER FOLDER", file=sys.stderr)
        return 2
    try:
        export(*arguments)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{arguments[1]}: AutoModelForCausalLM.from_pretrained reads it after `import models.pretrained`")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

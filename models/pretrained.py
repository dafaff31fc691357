"""Our decoders as a PreTrainedModel of transformers.

`import models.pretrained` registers them, and Llamas with Infini-attention, with AutoModelForCausalLM.
`python -m models.pretrained RUN_FOLDER FOLDER` exports a finished run's decoder and tokenizer for from_pretrained.
"""

import inspect
import json
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from models.generation import check_rows, read_prompt
from models.infini_llama import InfiniLlamaConfig, InfiniLlamaForCausalLM, add_infini
from models.state import read_tensors
from models.state_cache import StateLayer, check_unpadded, state_layer

__all__ = ["DecoderConfig", "DecoderForCausalLM", "add_infini", "export", "save"]

PACKAGES = ("models.", "torch.nn.")  # a saved model may contain only their modules
# Of all our vocabularies. Padding is the end: were it the beginning, transformers would take a prompt's first token for
# padding.
SPECIAL = {"bos_token": "<document>", "eos_token": "<end>", "pad_token": "<end>"}


class DecoderConfig(PreTrainedConfig):
    """The settings of a decoder: the `model` section of a run's config.yaml."""

    model_type = "reproduction_decoder"
    model: dict[str, Any] | None = None
    vocab_size: int = 0
    use_cache: bool = True
    tie_word_embeddings: bool = False  # the decoder ties them itself


class DecoderForCausalLM(PreTrainedModel, GenerationMixin):
    """One of our decoders with the interface of transformers; its state is the cache.

    Raises ValueError if the configuration is not a decoder or names anything but our modules and those of torch.nn.
    """

    config: DecoderConfig
    config_class = DecoderConfig
    _is_stateful = True  # the state cannot be rolled back: no assisted generation

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.decoder: Any = build(config.model, config.vocab_size)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` creates its own cache

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.embedding = value

    def get_output_embeddings(self) -> None:
        return None  # tied to the input embeddings

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
        """Logits for input_ids (B, T) that follow the cached tokens; with labels (B, T) also the mean loss.

        Labels are shifted here and -100 is ignored, as everywhere in transformers. logits_to_keep: compute logits only
        for the last so many tokens, 0 for all; with 1, a long prompt is read in pieces. Raises ValueError for padding,
        and for a cache of another number of sequences.
        """
        check_unpadded(attention_mask)
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = Cache(layers=[StateLayer()])
        layer = StateLayer() if past_key_values is None else state_layer(past_key_values, 0)
        check_rows(layer.state, input_ids)
        if logits_to_keep == 1 and labels is None:
            last, state = read_prompt(self.decoder, input_ids, state=layer.state)
            logits = last[:, None]
        else:
            logits, state = self.decoder(input_ids, layer.state)
            logits = logits[:, -logits_to_keep:]
        layer.advance(state, input_ids.shape[1])
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)


AutoConfig.register(DecoderConfig.model_type, DecoderConfig)
AutoModelForCausalLM.register(DecoderConfig, DecoderForCausalLM)
AutoConfig.register(InfiniLlamaConfig.model_type, InfiniLlamaConfig)
AutoModelForCausalLM.register(InfiniLlamaConfig, InfiniLlamaForCausalLM)


def build(settings: Any, vocabulary_size: int) -> nn.Module:
    """Build the decoder from its settings. Raises ValueError; see DecoderForCausalLM."""
    if not isinstance(settings, dict) or "_target_" not in settings:
        raise ValueError("the saved decoder's config.json has no settings under `model`: export the run again")
    check_targets(settings)
    try:
        model = hydra.utils.instantiate(settings, vocabulary_size=vocabulary_size)
    except hydra.errors.InstantiationException as error:
        raise ValueError(" ".join(str(error.__cause__ or error).split())) from error
    if not hasattr(model, "initial_state"):
        raise ValueError(f"{type(model).__name__} has no state: it is not a decoder")
    return model


def check_targets(node: Any) -> None:
    """Raise ValueError if settings name anything but our module classes and those of torch.nn, or contain `${…}`.

    A folder from an untrusted source could otherwise execute any code.
    """
    if isinstance(node, str) and "${" in node:
        raise ValueError(f"a saved model can contain only plain values, not {node!r}")
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        found = pkgutil.resolve_name(target) if str(target).startswith(PACKAGES) else None
        ours = inspect.isclass(found) and issubclass(found, nn.Module) and f"{found.__module__}.".startswith(PACKAGES)
        if not ours:
            raise ValueError(f"a saved model can contain only modules of `models` and torch.nn, not {target}")
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(part)


def save(decoder: Any, settings: dict[str, Any], folder: str | Path, tokenizer: Any = None) -> None:
    """Save a decoder, built from these settings, to a folder for from_pretrained.

    tokenizer: of transformers, saved with it. generate() then stops at the end of a summary, which is the end token, or
    of a document, after which the next one begins.
    """
    with torch.device("meta"):
        model = DecoderForCausalLM(DecoderConfig(model=settings, vocab_size=decoder.embedding.num_embeddings))
    model.decoder = decoder
    if tokenizer is not None:
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        model.generation_config = GenerationConfig(bos_token_id=begin, eos_token_id=[end, begin], pad_token_id=end)
        tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def export(run_folder: str | Path, folder: str | Path) -> None:
    """Save a finished run's decoder, and its tokenizer if it has one, to a folder for from_pretrained.

    Runs on tokens without a text have no tokenizer, nor have runs of old versions of this program.
    Raises ValueError or OSError if the run is not finished, has no decoder, or its checkpoint is damaged or missing.
    """
    run = Path(run_folder)
    if not (run / "status.json").exists() or json.loads((run / "status.json").read_text())["status"] != "finished":
        raise ValueError(f"{run} is not the folder of a finished run")
    settings = yaml.safe_load((run / "config.yaml").read_text())["model"]
    prefix = "model/"
    try:
        tensors, _ = read_tensors(run / "checkpoint.safetensors")
    except ValueError as error:
        raise ValueError(f"the checkpoint of {run} is damaged ({error})") from error
    weights = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if "embedding.weight" not in weights:
        raise ValueError(f"{run} has trained no decoder")
    decoder = build(settings, vocabulary_size=len(weights["embedding.weight"]))
    decoder.load_state_dict(weights)
    file = run / "tokenizer.json"
    save(
        decoder,
        settings,
        folder,
        PreTrainedTokenizerFast(tokenizer_file=str(file), **SPECIAL) if file.exists() else None,
    )


def main(arguments: Sequence[str]) -> int:
    """Export the run named by the arguments; returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m models.pretrained RUN_FOLDER FOLDER", file=sys.stderr)
        return 2
    try:
        export(*arguments)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{arguments[1]}: load it with AutoModelForCausalLM.from_pretrained after `import models.pretrained`")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

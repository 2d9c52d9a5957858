"""Reads a model and its tokenizer from a directory, or says in one sentence why it cannot.

`model` is everywhere a directory that transformers can load, or the name of a model that its cache or the
model hub has.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from agentrl.errors import UsageError
from agentrl.files import has_tokenizer

# Bars for loading three files of a small model would clutter every run.
disable_progress_bar()

DtypeName = Literal["auto", "float32", "bfloat16", "float64"]

# What models are stored in that can be computed with as it is.
_MAPPED = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def choose_dtype(name: DtypeName, device: str) -> torch.dtype:
    """Return the named type; "auto" is float32 on the CPU and bfloat16 on CUDA."""
    if name == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_model(path: Path | str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """Load a causal language model, in evaluation mode (no dropout).

    On the CPU weights that are stored in the type that they are loaded in take no memory of this process:
    their files are mapped.

    Raises:
        UsageError: there is no model at `path`, or not one that transformers knows, or it is damaged.
    """
    _check_model(path)
    with _reading(path):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(device).eval()


def map_model(path: Path | str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """Load as `load_model` does, but as it is stored what `dtype` can hold without loss."""
    stored = _stored(path)
    if len(stored) == 1 and stored <= _MAPPED:
        (narrow,) = stored
        dtype = narrow if torch.promote_types(narrow, dtype) == dtype else dtype
    return load_model(path, dtype, device)


def _stored(path: Path | str) -> set[torch.dtype]:
    """Return the types of the tensors in a model's files, as far as they are safetensors."""
    found: set[torch.dtype] = set()
    folder = Path(path) if _is_folder(path) else _fetched(str(path))
    with _reading(path):
        for file in folder.glob("*.safetensors") if folder else ():
            with safe_open(file, "pt") as tensors:
                found |= {tensors.get_tensor(name).dtype for name in tensors.offset_keys()}
    return found


def _fetched(name: str) -> Path | None:
    """Return the folder in the cache of a model of the hub, with its weights if they are safetensors."""
    try:
        return Path(snapshot_download(name, allow_patterns=["model.safetensors", "model-*.safetensors"]))
    except (OSError, ValueError):  # if it cannot be loaded either, that says why
        return None


@contextmanager
def _reading(path: Path | str) -> Iterator[None]:
    """Turn what libraries say of a model that cannot be read into one sentence."""
    try:
        yield
    except SafetensorError as error:
        raise UsageError(
            f"a weights file of the model {str(path)!r} is damaged ({_sentence(error)}); copy it again"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"transformers cannot load the model {str(path)!r}: {_sentence(error)}") from error


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        UsageError: there is none, or it has no chat template.
    """
    _check_tokenizer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"transformers cannot load the tokenizer of {str(path)!r}: {_sentence(error)}; "
            "copy the model's tokenizer (tokenizer.json) again"
        ) from error
    if not tokenizer.chat_template:
        raise UsageError(
            f"the tokenizer of {str(path)!r} has no chat template; choose an instruction-tuned model, "
            "or put a chat_template.jinja into its directory"
        )
    return tokenizer


def _check_model(path: Path | str) -> None:
    if not _is_folder(path):
        return
    if not os.path.isfile(os.path.join(path, "config.json")):
        raise UsageError(
            f"{str(path)!r} has no config.json, so it is no model; give --model a model directory"
        )
    if not _has_any(path, _WEIGHTS):
        raise UsageError(
            f"{str(path)!r} has a config.json but no weights (model.safetensors); "
            "download or save the whole model into it"
        )


def _check_tokenizer(path: Path | str) -> None:
    if _is_folder(path) and not has_tokenizer(Path(path)):
        raise UsageError(
            f"{str(path)!r} has no tokenizer (tokenizer.json); copy the model's tokenizer into it, "
            "or write it with tokenizer.save_pretrained"
        )


def _is_folder(path: Path | str) -> bool:
    """Return whether `path` is a directory; a name of the model hub is not."""
    if os.path.isdir(path):
        return True
    if isinstance(path, Path) or os.path.isabs(path) or str(path).startswith((".", "~")):
        raise UsageError(f"there is no model directory {str(path)!r}; check --model for a misspelling")
    return False


def _has_any(folder: Path | str, names: tuple[str, ...]) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in names)


def _sentence(error: Any) -> str:
    """Return the first line of an error, without the colon before what is left out."""
    return str(error).strip().splitlines()[0].rstrip(" :") if str(error).strip() else type(error).__name__

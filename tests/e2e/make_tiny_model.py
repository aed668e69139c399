"""A Llama small enough for a CPU: configuration and tokenizer only, written without any download.

    python tests/e2e/make_tiny_model.py FOLDER

vLLM makes up the weights itself (`--load-format dummy`). The tokenizer is byte-level BPE without a
single merge: one token a byte and three special ones, so no text has to be learned from. Standard
library only.
"""

import json
import sys
from pathlib import Path
from typing import Any

HIDDEN = 384
LAYERS = 6
HEAD = 64
MAX_TOKENS = 2048
SPECIAL = ("<s>", "</s>", "<pad>")
BYTES = 256


def byte_symbols() -> list[str]:
    """Return the character that byte-level BPE shows for each byte: itself if it can be printed.

    The others (blanks, control characters) take the code points from 256 on, in order.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [b for b in range(BYTES) if b not in printable]
    return [chr(b) if b in printable else chr(BYTES + hidden.index(b)) for b in range(BYTES)]


def tokenizer() -> dict[str, Any]:
    """Return tokenizer.json: ids 0 to 2 are special, then the bytes."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    vocabulary = {text: i for i, text in enumerate((*SPECIAL, *byte_symbols()))}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "special": True, **flags} for i, text in enumerate(SPECIAL)
        ],
        "pre_tokenizer": {**byte_level, "use_regex": False},
        "decoder": {**byte_level, "use_regex": False},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def config() -> dict[str, Any]:
    """Return config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(SPECIAL) + BYTES,
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN // HEAD,
        "num_key_value_heads": HIDDEN // HEAD,
        "head_dim": HEAD,
        "max_position_embeddings": MAX_TOKENS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def write_model(folder: Path) -> None:
    """Write the model's files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[1],
            "pad_token": SPECIAL[2],
            "model_max_length": MAX_TOKENS,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))

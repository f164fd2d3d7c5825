"""Write a tiny random Qwen3-VL checkpoint twice, offline: `tiny.py FOLDER FOLDER_4.57`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

MARKS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen cuts text before BPE: each digit alone, without the space before it."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VIDEO = {
    "video_processor_type": "Qwen3VLVideoProcessor",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 4096, "longest_edge": 131072},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""As the published checkpoints have it, but for a budget that makes large frames shrink."""
CORPUS = ["ANSWER: 1 2 3 4 5", "the robot puts the red cup on the blue plate", "<0.2 seconds>"]


def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[AddedToken(mark, special=True) for mark in MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(CORPUS * 4, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


def config(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    """As 5.x writes it."""
    ids = {mark: words.convert_tokens_to_ids(mark) for mark in MARKS}
    rope = {
        "rope_type": "default",
        "rope_theta": 5000000.0,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
    text = {
        "model_type": "qwen3_vl_text", "vocab_size": len(words), "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 8192,
        "rope_parameters": rope, "dtype": "float32",
    }  # fmt: skip
    vision = {
        "model_type": "qwen3_vl_vision", "depth": 2, "hidden_size": 64, "intermediate_size": 128,
        "num_heads": 4, "out_hidden_size": 64, "patch_size": 16, "temporal_patch_size": 2,
        "spatial_merge_size": 2, "num_position_embeddings": 2304, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
        "dtype": "float32",
        "text_config": text,
        "vision_config": vision,
    }


def as_457(new: dict[str, Any]) -> dict[str, Any]:
    """The same config as transformers 4.57 wrote it: ``rope_scaling`` and ``torch_dtype``."""
    old: dict[str, Any] = json.loads(json.dumps(new))
    old["torch_dtype"] = old.pop("dtype")
    text = old["text_config"]
    text["torch_dtype"] = text.pop("dtype")
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope
    return old


def write(new_style: Path, old_style: Path) -> None:
    """The same weights and words with the configuration files of transformers 5 and 4.57."""
    words = tokenizer()
    new = config(words)
    torch.manual_seed(7)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**new)).float().eval()
    start = words("ANSWER: ", add_special_tokens=False, return_tensors="pt")["input_ids"]
    digits = [words.convert_tokens_to_ids(digit) for digit in "12345"]
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" not in name and tensor.ndim > 1:
                tensor.normal_(0, 0.3 if "lm_head" not in name else 0.09)
        # As in a trained checkpoint, the digits are the likely answers, and which of them hangs
        # on the clip.
        last = model.model(input_ids=start).last_hidden_state[0, -1]
        model.lm_head.weight[digits] = 1.5 * last / last.norm() + 0.15 * torch.randn(5, len(last))
    for folder in (new_style, old_style):
        model.save_pretrained(folder, max_shard_size="1MB")
        words.save_pretrained(folder)
    processor = {"processor_class": "Qwen3VLProcessor", "video_processor": VIDEO}
    (new_style / "config.json").write_text(json.dumps(new))
    (new_style / "processor_config.json").write_text(json.dumps(processor))
    (old_style / "config.json").write_text(json.dumps(as_457(new)))
    (old_style / "video_preprocessor_config.json").write_text(json.dumps(VIDEO))
    (old_style / "chat_template.jinja").unlink()
    (old_style / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))

"""A CLIP checkpoint of random weights, made here, against what transformers itself computes."""

import json

import numpy as np
import pytest
import torch

from evovla.clip_scorer import ClipConfig, ClipScorer
from evovla.stages import Stage, StageDictionary
from evovla.triplets import Triplets

transformers = pytest.importorskip("transformers")

SIDE, LONGEST = 24, 20
TEXTS = ["the cube is held", "the cube is near", "nothing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny CLIP of two layers per side; its tokens are single letters."""
    at = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    words = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=LONGEST).save_pretrained(at)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    text = small | {
        "vocab_size": len(vocab), "max_position_embeddings": LONGEST,
        "bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"],
        "pad_token_id": vocab["<|endoftext|>"],
    }  # fmt: skip
    config = transformers.CLIPConfig(
        text_config=text, vision_config=small | {"image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(at)
    told = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "do_resize": True,
            "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE},
            "image_processor_type": "CLIPImageProcessor"}  # fmt: skip
    (at / "preprocessor_config.json").write_text(json.dumps(told))
    return at


def pictures(n, views=1, height=SIDE, width=SIDE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, views, height, width, 3)).astype(np.uint8)


def by_transformers(folder, images, texts):
    """(n, len(texts)) cosines of pictures (n, SIDE, SIDE, 3) as CLIPModel.forward has them."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    told = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    pixels = torch.from_numpy((images / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        out = model(pixel_values=pixels, **told)
        return (out.logits_per_image / model.logit_scale.exp()).numpy()


def test_similarities_are_those_of_transformers(folder):
    images = pictures(3)
    found = ClipScorer(folder).similarities(images, TEXTS)
    np.testing.assert_allclose(found, by_transformers(folder, images[:, 0], TEXTS), atol=1e-5)


def test_siglip_reads_texts_padded_to_the_full_length(folder, tmp_path):
    told = {"model_max_length": LONGEST, "model_input_names": ["input_ids"]}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **told)
    tokenizer.save_pretrained(tmp_path)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    text = small | {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST}
    config = transformers.SiglipConfig(
        text_config=text, vision_config=small | {"image_size": SIDE, "patch_size": 8}
    )
    torch.manual_seed(0)
    model = transformers.SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")  # mean and deviation of one half
    images = pictures(2)
    found = ClipScorer(tmp_path).similarities(images, TEXTS)
    ids = tokenizer(TEXTS, padding="max_length", max_length=LONGEST, return_tensors="pt").input_ids
    pixels = torch.from_numpy(images[:, 0] / 127.5 - 1).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        out = model(pixel_values=pixels, input_ids=ids)
        want = (out.logits_per_image - model.logit_bias) / model.logit_scale.exp()
    np.testing.assert_allclose(found, want.numpy(), atol=1e-5)


def test_other_sizes_are_scaled_and_cut_as_the_checkpoint_wants(folder):
    large = np.repeat(np.repeat(pictures(2, 1, 12, 12), 8, axis=2), 8, axis=3)  # 96 x 96
    wide = np.pad(large, ((0, 0), (0, 0), (0, 0), (16, 16), (0, 0)))  # the cut takes it off again
    scorer = ClipScorer(folder)
    np.testing.assert_allclose(
        scorer.similarities(large, TEXTS), scorer.similarities(wide, TEXTS), atol=0.02
    )


def test_views_are_averaged_or_one_is_looked_at(folder):
    images = pictures(2, views=2)
    side, wrist = (
        ClipScorer(folder, ClipConfig(views=(name,))).similarities(images[:, v : v + 1], TEXTS)
        for v, name in enumerate(("side", "wrist"))
    )
    both = ClipScorer(folder, ClipConfig(views=("side", "wrist")))
    np.testing.assert_allclose(both.similarities(images, TEXTS), (side + wrist) / 2, atol=1e-6)
    one = ClipScorer(folder, ClipConfig(views=("side", "wrist"), look_at="wrist"))
    np.testing.assert_allclose(one.similarities(images, TEXTS), wrist, atol=1e-6)


def test_each_text_is_encoded_once(folder):
    scorer = ClipScorer(folder)
    asked = []
    encode = scorer._encode_texts
    scorer._encode_texts = lambda texts: asked.append(list(texts)) or encode(texts)
    scorer.similarities(pictures(1), TEXTS)
    scorer.similarities(pictures(1), [*reversed(TEXTS), "something new"])
    assert asked == [TEXTS, ["something new"]]


def test_long_texts_are_cut_after_the_tokens_that_fit(folder):
    scorer = ClipScorer(folder)
    text = "abcdefghijklmnopqrst"
    found = scorer.similarities(pictures(1), [text[:18] + "uuuu", text[:18] + "vvvv", text[:17]])
    assert found[0, 0] == pytest.approx(found[0, 1], abs=1e-6)
    assert abs(found[0, 0] - found[0, 2]) > 1e-6


def test_a_checkpoint_is_a_scorer_of_stages(folder):
    stage = Stage("the cube is held up", "the cube is far away", ("the cube is near",))
    triplets = Triplets(StageDictionary("t", "t", (stage,)))
    gaps = triplets.gaps(ClipScorer(folder).similarities(pictures(4), triplets.texts))
    assert gaps.shape == (4, 1) and np.abs(gaps).max() < 2


def test_what_is_no_checkpoint_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a checkpoint's folder with config.json"):
        ClipScorer(tmp_path)
    with pytest.raises(ValueError, match="look_at must be one of side, got 'wrist'"):
        ClipConfig(look_at="wrist")
    with pytest.raises(ValueError, match=r"images must be \(N, 1, H, W, 3\) uint8 of side"):
        ClipScorer(folder).similarities(pictures(1, views=2), TEXTS)
    model = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
                                    intermediate_size=16, vocab_size=20)  # fmt: skip
    transformers.BertModel(model).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a CLIP-class checkpoint, got BertModel"):
        ClipScorer(tmp_path)

"""Public kinds of checkpoint, of tiny random weights made here, against what transformers computes.

The reference implementations are not installed: what is compared with an independent one are the
towers, the rotary prefix and the Llama; names and shapes are facts of the public files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evovla.actor import Actor
from evovla.adapters import openvla_oft, smolvla
from evovla.adapters.files import Bounds, Moments, read_tensors
from evovla.adapters.openvla_oft import OFTConfig, OFTPolicy, OpenVLAOFT
from evovla.adapters.smolvla import SmolVLA, SmolVLAConfig, SmolVLAPolicy, padded
from evovla.adapters.vit import DINOV2, Tower, TowerConfig

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

DINO = TowerConfig(16, 3, 2, 32, 4, 16, registers=4, scaled=True, mean=DINOV2.mean, std=DINOV2.std)
SIGL = TowerConfig(24, 3, 2, 40, 4, 16)
LLAMA = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
OFT = OFTConfig((DINO, SIGL), LLAMA, action_dim=3, chunk=4, proprio_dim=5, empty_token=39)


def shake(module: nn.Module, seed: int = 0) -> None:
    """Weights that are nowhere 0 or 1 by chance of initialization."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))


def words(folder: Path) -> None:
    """A tokenizer of letters."""
    vocab = {letter: i for i, letter in enumerate("?<>abcdefghijklmnopqrstuvwxyz \n:IWO")}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)


def public(module: nn.Module, named: Callable[[str], str]) -> dict[str, torch.Tensor]:
    return {named(k): p.detach().clone().contiguous() for k, p in module.named_parameters()}


# towers


def test_the_dino_tower_is_transformers_own():
    tower = Tower(DINO)
    shake(tower)
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=16,
        patch_size=4, num_register_tokens=4,
    )  # fmt: skip
    theirs = transformers.Dinov2WithRegistersModel(config).eval()
    e = theirs.embeddings
    pairs = [
        (e.patch_embeddings.projection.weight, tower.patch_embed["proj"].weight),
        (e.patch_embeddings.projection.bias, tower.patch_embed["proj"].bias),
        (e.cls_token, tower.cls_token), (e.register_tokens, tower.reg_token),
        (e.position_embeddings, torch.cat([torch.zeros(1, 1, 16), tower.pos_embed], 1)),
    ]  # fmt: skip
    for layer, block in zip(theirs.encoder.layer, tower.blocks, strict=True):
        a, mine = layer.attention, block.attn["qkv"]
        linears = (a.q_proj, a.k_proj, a.v_proj)
        for other, weight, bias in zip(
            linears, mine.weight.chunk(3), mine.bias.chunk(3), strict=True
        ):
            pairs += [(other.weight, weight), (other.bias, bias)]
        for mine, other in (
            (block.attn["proj"], a.o_proj), (block.norm1, layer.norm1),
            (block.norm2, layer.norm2), (block.mlp["fc1"], layer.mlp.fc1),
            (block.mlp["fc2"], layer.mlp.fc2),
        ):  # fmt: skip
            pairs += [(other.weight, mine.weight), (other.bias, mine.bias)]
        pairs += [(layer.layer_scale1.lambda1, block.ls1.scale_factor),
                  (layer.layer_scale2.lambda1, block.ls2.scale_factor)]  # fmt: skip
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for other, mine in pairs:
            other.copy_(mine)
        white = (image - tower.mean) / tower.std
        want = theirs(white, output_hidden_states=True).hidden_states[-1][:, 5:]
        torch.testing.assert_close(tower(image), want, atol=1e-4, rtol=1e-4)


def test_the_siglip_tower_is_transformers_own():
    tower = Tower(SIGL)
    shake(tower)
    config = transformers.SiglipVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        image_size=16, patch_size=4, hidden_act="gelu",
    )  # fmt: skip
    theirs = transformers.SiglipVisionModel(config).eval()
    state = {}
    for name, p in tower.named_parameters():
        for old, new in (
            ("patch_embed.proj", "embeddings.patch_embedding"), ("blocks", "encoder.layers"),
            ("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn.proj", "self_attn.out_proj"),
        ):  # fmt: skip
            name = name.replace(old, new)
        if "qkv" in name:
            for part, kind in zip(p.chunk(3), "qkv", strict=True):
                state[name.replace("attn.qkv", f"self_attn.{kind}_proj")] = part
        elif name == "pos_embed":
            state["embeddings.position_embedding.weight"] = p[0]
        else:
            state[name] = p
    base = theirs.vision_model if hasattr(theirs, "vision_model") else theirs
    missing, extra = base.load_state_dict(state, strict=False)
    assert not extra and all(m.startswith(("head", "post_layernorm", "emb")) for m in missing)
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        want = base((image - 0.5) / 0.5, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(tower(image), want, atol=1e-4, rtol=1e-4)


# OpenVLA-OFT


def oft_folder(at: Path, config: OFTConfig = OFT) -> OpenVLAOFT:
    """A folder as published, converted; with the parts that nobody reads."""
    net = OpenVLAOFT(config)
    shake(net)
    net.eval()
    tensors = public(net, openvla_oft.named)
    for stem in ("action_head", "proprio_projector"):
        part = {k: tensors.pop(k) for k in list(tensors) if k.startswith(stem)}
        told = {k.replace(f"{stem}.", "module.", 1): v for k, v in part.items()}
        save_file(told, at / f"{stem}.safetensors")
    unused = ("language_model.lm_head.weight", "vision_backbone.featurizer.blocks.2.norm1.weight",
              "vision_backbone.fused_featurizer.attn_pool.q.bias")  # fmt: skip
    tensors |= {name: torch.zeros(1) for name in unused}
    half = len(tensors) // 2
    shards = {"a.safetensors": sorted(tensors)[:half], "b.safetensors": sorted(tensors)[half:]}
    for name, keys in shards.items():
        save_file({k: tensors[k] for k in keys}, at / name)
    index = {k: name for name, keys in shards.items() for k in keys}
    (at / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    stats = {"action": {"q01": [-1, 0, 0], "q99": [1, 4, 1], "mask": [True, True, False]},
             "proprio": {"q01": [0] * 5, "q99": [2] * 5}}  # fmt: skip
    (at / "dataset_statistics.json").write_text(json.dumps({"ours": stats}))
    words(at)
    return net


def seen(rows: int, proprio: int = 5, side: int = 16) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    state = rng.uniform(0, 2, (rows, proprio)).astype(np.float32)
    return {"state": state, "frames": rng.integers(0, 256, (rows, 2, side, side, 3), np.uint8)}


def test_an_oft_folder_gives_chunks_in_the_units_of_its_data(tmp_path: Path):
    net = oft_folder(tmp_path)
    policy = OFTPolicy(tmp_path, "lift it", OFT, dtype=torch.float32)
    obs, nothing = seen(2), np.zeros((2, 0), np.float32)
    chunk, memory = policy.chunk(obs, nothing)
    assert chunk.shape == (2, 4, 3) and memory is nothing
    ids = policy.ids.tolist()
    assert ids[0] == 1 and ids[-1] == 39  # begin token and the empty one were added
    images = openvla_oft.pictures(torch.from_numpy(obs["frames"]), 16, 0.9)
    with torch.no_grad():  # proprioception 0..2 is -1..1
        unit = net(images, policy.ids, torch.from_numpy(obs["state"]) - 1).numpy()
    want = np.stack([unit[..., 0], 2 * unit[..., 1] + 2, unit[..., 2]], axis=-1)
    np.testing.assert_allclose(chunk, want, atol=1e-4)
    action = Actor(policy, 2, execute=4)(obs)
    np.testing.assert_allclose(action, chunk[:, 0], atol=1e-6)
    other = obs | {"state": obs["state"] + 0.5}
    assert np.abs(policy.chunk(other, nothing)[0] - chunk).max() > 1e-5  # proprioception is read
    dark = obs | {"frames": np.concatenate([obs["frames"][:, :1], obs["frames"][:, 1:] // 4], 1)}
    assert np.abs(policy.chunk(dark, nothing)[0] - chunk).max() > 1e-5  # so is the wrist


def test_every_oft_token_looks_both_ways_and_the_layout_is_the_published_one(tmp_path: Path):
    net = OpenVLAOFT(OFT)
    shake(net)
    net.eval()
    caught: dict[str, Any] = {}
    net.language_model.register_forward_pre_hook(
        lambda module, args, given: caught.update(given), with_kwargs=True
    )
    images, ids = torch.rand(1, 2, 3, 16, 16), torch.tensor([1, 7, 8, 39])
    with torch.no_grad():
        first = net(images, ids, torch.rand(1, 5))
        x = caught["inputs_embeds"]
        embed = net.language_model.get_input_embeddings()
        # begin, 2 x 16 patches, proprioception, 3 words, 4 x 3 empty, stop
        assert x.shape[1] == 1 + 32 + 1 + 3 + 12 + 1
        assert torch.equal(x[:, [0, 34, 36, 49]], embed(torch.tensor([[1, 7, 39, 2]])))
        assert not x[:, 37:49].any()
        # the last token, seen by none in a causal Llama, moves the first action
        net.language_model.get_input_embeddings().weight[2] += 1.0
        assert not torch.allclose(net(images, ids, torch.rand(1, 5))[:, 0], first[:, 0])


def test_a_folder_that_does_not_fit_is_refused_by_name(tmp_path: Path):
    oft_folder(tmp_path)
    with pytest.raises(ValueError, match="timm_model_ids"):
        (tmp_path / "config.json").write_text(json.dumps({"timm_model_ids": ["x", "y"]}))
        OFTPolicy(tmp_path, "lift it")
    with pytest.raises(ValueError, match="dataset"):
        OFTPolicy(tmp_path, "lift it", OFT, dataset="theirs")
    head = tmp_path / "action_head.safetensors"
    kept = read_tensors(tmp_path, "action_head")
    save_file({k: v for k, v in kept.items() if "fc2" not in k}, head)
    with pytest.raises(ValueError, match=r"missing.*action_head\.model\.fc2"):
        OFTPolicy(tmp_path, "lift it", OFT)
    save_file(kept | {"module.model.more": torch.zeros(1)}, head)
    with pytest.raises(ValueError, match="unknown"):
        OFTPolicy(tmp_path, "lift it", OFT)
    head.rename(tmp_path / "action_head.pt")
    with pytest.raises(FileNotFoundError, match="pickle"):
        OFTPolicy(tmp_path, "lift it", OFT)


def test_the_full_oft_has_the_public_names_and_shapes():
    with torch.device("meta"):
        net = OpenVLAOFT(OFTConfig())
    shapes = {openvla_oft.named(k): tuple(p.shape) for k, p in net.named_parameters()}
    dino, siglip = "vision_backbone.featurizer.", "vision_backbone.fused_featurizer."
    assert shapes[f"{dino}pos_embed"] == (1, 256, 1024)
    assert shapes[f"{dino}reg_token"] == (1, 4, 1024)
    assert shapes[f"{dino}blocks.22.ls1.scale_factor"] == (1024,)
    assert f"{dino}blocks.23.norm1.weight" not in shapes
    assert shapes[f"{siglip}pos_embed"] == (1, 256, 1152)
    assert shapes[f"{siglip}blocks.25.mlp.fc1.weight"] == (4304, 1152)
    assert shapes["projector.fc1.weight"] == (8704, 2176)
    assert shapes["projector.fc2.weight"] == (4096, 8704)
    assert shapes["language_model.model.layers.31.mlp.down_proj.weight"] == (4096, 11008)
    assert shapes["language_model.model.embed_tokens.weight"] == (32064, 4096)
    assert shapes["action_head.model.fc1.weight"] == (4096, 28672)
    assert shapes["action_head.model.mlp_resnet_blocks.1.ffn.1.weight"] == (4096, 4096)
    assert shapes["proprio_projector.fc1.weight"] == (4096, 8)


def test_bounds_leave_what_is_masked_and_come_back():
    bounds = Bounds.from_json({"q01": [0, 0], "q99": [4, 1], "mask": [True, False]}, "x")
    want = np.array([[-0.5, 0.7], [1.0, 0.0]])
    assert bounds.to_unit([[1.0, 0.7], [9.0, 0.0]]) == pytest.approx(want)
    assert bounds.from_unit([[-0.5, 0.7]]) == pytest.approx(np.array([[1.0, 0.7]]))
    moments = Moments(np.array([2.0]), np.array([4.0]))
    assert moments.from_unit(moments.to_unit([[7.0]])) == pytest.approx(np.array([[7.0]]))
    for wrong in ({}, {"q01": [1], "q99": [0]}, {"q01": [0, 0], "q99": [1]}):
        with pytest.raises(ValueError, match="q01"):
            Bounds.from_json(wrong, "x")


# SmolVLA


VLM = {
    "text_config": LLAMA | {"model_type": "llama", "num_hidden_layers": 5},
    "vision_config": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
                      "num_attention_heads": 2, "image_size": 16, "patch_size": 4},
    "scale_factor": 2, "image_token_id": 39,
}  # fmt: skip
SMOL = SmolVLAConfig(
    chunk_size=5, max_state_dim=6, max_action_dim=4, num_steps=3, num_vlm_layers=4,
    resize_imgs_with_padding=(16, 16),
)  # fmt: skip


def smol() -> SmolVLA:
    net = SmolVLA(SMOL, VLM)
    shake(net)
    return net.eval()


def smol_folder(at: Path) -> SmolVLA:
    net = smol()
    tensors = public(net, smolvla.named)
    tensors["model.vlm_with_expert.vlm.lm_head.weight"] = torch.zeros(1)
    save_file(tensors, at / "model.safetensors")
    config = {k: getattr(SMOL, k) for k in ("chunk_size", "max_state_dim", "max_action_dim",
              "num_steps", "num_vlm_layers", "resize_imgs_with_padding")}  # fmt: skip
    (at / "config.json").write_text(json.dumps(config | {"type": "smolvla", "n_obs_steps": 1}))
    stats = {"state": {"mean": [1.0] * 5, "std": [2.0] * 5},
             "action": {"mean": [0.5] * 3, "std": [2.0] * 3}}  # fmt: skip
    (at / "dataset_statistics.json").write_text(json.dumps(stats))
    (at / "vlm").mkdir()
    (at / "vlm" / "config.json").write_text(json.dumps(VLM))
    words(at / "vlm")
    return net


def given(net: SmolVLA, rows: int = 2) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 2, 3, 16, 16, generator=g) * 2 - 1
    ids = torch.randint(3, 30, (rows, 4), generator=g)
    there = torch.ones(rows, 4, dtype=torch.bool)
    return images, ids, there, torch.randn(rows, 6, generator=g)


def test_a_smolvla_folder_gives_chunks_in_the_units_of_its_data(tmp_path: Path):
    net = smol_folder(tmp_path)
    policy, obs = SmolVLAPolicy(tmp_path, "lift it", seed=3), seen(2)
    chunk, _ = policy.chunk(obs, np.zeros((2, 0), np.float32))
    assert chunk.shape == (2, 5, 3)
    noise = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3))
    state = torch.zeros(2, 6)
    state[:, :5] = torch.from_numpy((obs["state"] - 1) / 2)
    images = torch.from_numpy(obs["frames"]).permute(0, 1, 4, 2, 3) / 127.5 - 1
    ids = policy.ids.expand(2, -1)
    with torch.no_grad():
        unit = net(images, ids, torch.ones_like(ids).bool(), state, noise)
    np.testing.assert_allclose(chunk, 2 * unit[..., :3] + 0.5, atol=1e-4)
    again = SmolVLAPolicy(tmp_path, "lift it", seed=3).chunk(obs, np.zeros((2, 0), np.float32))[0]
    np.testing.assert_array_equal(again, chunk)
    with pytest.raises(ValueError, match="mean and std"):
        (tmp_path / "dataset_statistics.json").write_text("{}")
        SmolVLAPolicy(tmp_path, "lift it")


def test_what_smolvla_reads_is_what_transformers_reads():
    net = smol()
    net.vlm.text_model.rotary_emb.inv_freq.copy_(1e4 ** (-torch.arange(4) / 4))
    images, ids, there, state = given(net)
    caught: list[torch.Tensor] = []
    last = net.vlm.text_model.layers[-1]
    hook = last.input_layernorm.register_forward_pre_hook(lambda m, args: caught.append(args[0]))
    with torch.no_grad():
        net.read(images, ids, there, state)
        hook.remove()
        patches = net.vlm.vision_model(pixel_values=images.flatten(0, 1)).last_hidden_state
        sight = net.vlm.connector(patches).reshape(2, -1, 32)
        parts = [sight, net.vlm.text_model.embed_tokens(ids)]
        x = torch.cat([*(p * 32**0.5 for p in parts), net.state_proj(state)[:, None]], dim=1)
        mask = torch.ones(2, 1, x.shape[1], x.shape[1], dtype=torch.bool)
        mask[..., :-1, -1] = False
        want = net.vlm.text_model(
            inputs_embeds=x, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states[3]
    torch.testing.assert_close(caught[0], want, atol=1e-4, rtol=1e-4)


def test_an_action_of_smolvla_sees_the_earlier_ones_and_no_padding():
    net = smol()
    images, ids, there, state = given(net)
    there[:, 3] = False
    x, time = torch.randn(2, 5, 4), torch.full((2,), 0.7)
    later, other = x.clone(), ids.clone()
    later[:, 3:] += 1.0
    other[:, 3] = 1
    with torch.no_grad():
        cache, good = net.read(images, ids, there, state)
        v = net.velocity(x, time, cache, good)
        moved = net.velocity(later, time, cache, good)
        padded_otherwise = net.velocity(x, time, *net.read(images, other, there, state))
        elsewhere = net.velocity(x, time, *net.read(images, ids, there, state + 1))
    torch.testing.assert_close(moved[:, :3], v[:, :3])
    assert not torch.allclose(moved[:, 3:], v[:, 3:])
    torch.testing.assert_close(padded_otherwise, v)
    assert not torch.allclose(elsewhere, v)


def test_pictures_are_scaled_as_a_whole_and_padded_left_and_above():
    frames = torch.full((1, 1, 8, 16, 3), 255, dtype=torch.uint8)
    out = padded(frames, (16, 16))
    assert out.shape == (1, 1, 3, 16, 16)
    assert (out[..., :8, :] == -1).all() and (out[..., 8:, :] == 1).all()


@pytest.mark.parametrize(
    "changes", [{"attention_mode": "self_attn"}, {"num_expert_layers": 4}, {"prefix_length": 9}]
)
def test_a_smolvla_that_is_not_covered_is_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="wanted"):
        SmolVLAConfig.from_json(changes)


def test_the_full_smolvla_has_the_public_names_and_shapes():
    text = {"model_type": "llama", "hidden_size": 960, "intermediate_size": 2560, "head_dim": 64,
            "num_attention_heads": 15, "num_key_value_heads": 5, "num_hidden_layers": 32,
            "vocab_size": 49280}  # fmt: skip
    sight = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
             "num_attention_heads": 12, "image_size": 512, "patch_size": 16}  # fmt: skip
    vlm = {"text_config": text, "vision_config": sight, "scale_factor": 4}
    with torch.device("meta"):
        net = SmolVLA(SmolVLAConfig(), vlm)
    shapes = {smolvla.named(k): tuple(p.shape) for k, p in net.named_parameters()}
    expert, seen_by = "model.vlm_with_expert.lm_expert.", "model.vlm_with_expert.vlm.model."
    assert len(shapes) == 499  # and the unused lm_head makes 500
    assert shapes["model.action_time_mlp_in.weight"] == (720, 1440)
    assert shapes["model.state_proj.weight"] == (960, 32)
    assert shapes[f"{expert}layers.0.self_attn.k_proj.weight"] == (320, 720)
    assert shapes[f"{expert}layers.1.self_attn.k_proj.weight"] == (320, 320)
    assert shapes[f"{expert}layers.15.mlp.down_proj.weight"] == (720, 2048)
    assert shapes[f"{expert}norm.weight"] == (720,)
    assert shapes[f"{seen_by}connector.modality_projection.proj.weight"] == (960, 12288)
    assert shapes[f"{seen_by}text_model.embed_tokens.weight"] == (49280, 960)
    assert f"{seen_by}text_model.layers.16.input_layernorm.weight" not in shapes

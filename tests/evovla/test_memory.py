"""Long-horizon memory: its equations, its bookkeeping, and a cue to be told 60 steps later."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from evovla.memory import AttentionMemory, Memory, MemoryConfig, memory

torch.set_num_threads(1)
KINDS = ("attention", "gru", "off")


def small(kind="attention", **options):
    return memory(MemoryConfig(**{"kind": kind, "dim": 8, "slots": 4, "top_k": 2, **options}))


def frames(steps, rows, dim=8, seed=0):
    return torch.randn(steps, rows, dim, generator=torch.Generator().manual_seed(seed))


def never(steps, rows):
    return torch.zeros(steps, rows, dtype=torch.bool)


def run(net, x, state=None):
    """Step by step, as a robot does."""
    state = net.initial(x.shape[1]) if state is None else state
    out, gates = [], []
    for frame in x:
        seen, gate, state = net(frame, state)
        out.append(seen)
        gates.append(gate)
    return torch.stack(out), torch.stack(gates), state


def with_strength(net, per_step):
    """Make the strength of a moment be told by its first feature: sigmoid of it."""
    with torch.no_grad():
        net.strength.weight.zero_()
        net.strength.weight[0, 0] = 1.0
        net.gate.bias.fill_(-50.0)  # what is written is what is seen
    x = torch.zeros(len(per_step), 1, 8)
    x[:, 0, 0] = torch.tensor(per_step)
    x[:, 0, 1:] = torch.eye(7).repeat(len(per_step) // 7 + 1, 1)[: len(per_step)] * 5
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_gives_what_its_steps_give(kind):
    net, x = small(kind), frames(30, 5)
    want = run(net, x)
    got = net.sequence(x, net.initial(5), never(30, 5))
    cut = net.sequence(x, net.initial(5), never(30, 5), truncate=7)
    for other in (got, cut):
        for a, b in zip((*want[:2], *want[2]), (*other[:2], *other[2]), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_in_pieces_gives_the_whole(kind):
    net, x = small(kind), frames(30, 5)
    whole = net.sequence(x, net.initial(5), never(30, 5))
    state, out = net.initial(5), []
    for piece in x.split(11):
        seen, _, state = net.sequence(piece, state, never(len(piece), 5))
        out.append(seen)
    assert torch.equal(torch.cat(out), whole[0])
    for a, b in zip(state, whole[2], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ("attention", "gru"))
def test_truncation_cuts_the_gradient_and_nothing_else(kind):
    net = small(kind)
    with torch.no_grad():
        net.gate.bias.fill_(1.0)
    for truncate, reaches in ((None, True), (4, False), (3, True)):
        x = frames(5, 2).requires_grad_(True)
        out, _, _ = net.sequence(x, net.initial(2), never(5, 2), truncate)
        out[4].sum().backward()
        assert bool(x.grad[4].abs().sum() > 0)
        assert (float(x.grad[3].abs().sum()) > 0) == (reaches), truncate
    assert float(x.grad[2].abs().sum()) == 0, "cut before step 3"


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_that_begins_remembers_nothing(kind):
    net, x = small(kind), frames(20, 3)
    first = never(20, 3)
    first[12, 1] = True
    out, gate, state = net.sequence(x, net.initial(3), first)
    fresh, fresh_gate, fresh_state = net.sequence(x[12:, 1:2], net.initial(1), never(8, 1))
    torch.testing.assert_close(out[12:, 1:2], fresh)
    torch.testing.assert_close(gate[12:, 1:2], fresh_gate)
    for part, alone in zip(state, fresh_state, strict=True):
        torch.testing.assert_close(part[1:2], alone)
    plain, _, _ = net.sequence(x, net.initial(3), never(20, 3))
    assert torch.equal(out[:, [0, 2]], plain[:, [0, 2]])


@pytest.mark.parametrize("kind", ("attention", "gru"))
def test_reset_forgets_the_named_rows_only_and_leaves_the_old_state_alone(kind):
    net = small(kind)
    _, _, state = run(net, frames(6, 4))
    kept = [part.clone() for part in state]
    after = Memory.reset(state, [1, 3])
    for part, old, copy in zip(after, state, kept, strict=True):
        assert torch.equal(old, copy)
        assert float(part[[1, 3]].detach().abs().sum()) == 0
        assert torch.equal(part[[0, 2]], old[[0, 2]])
    assert all(float(part.detach().abs().sum()) == 0 for part in Memory.reset(state))
    with pytest.raises(ValueError, match=r"env_ids must be in \[0, 4\)"):
        Memory.reset(state, [4])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_know_of_one_another(kind):
    net, x = small(kind), frames(25, 6)
    out, gate, _ = run(net, x)
    alone, alone_gate, _ = run(net, x[:, 4:5])
    torch.testing.assert_close(alone[:, 0], out[:, 4])
    torch.testing.assert_close(alone_gate[:, 0], gate[:, 4])


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_memory_goes_on_bit_for_bit(kind):
    net, x = small(kind, seed=1), frames(20, 3)
    out, _, _ = run(net, x)
    _, _, state = run(net, x[:9])
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "state": state}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = small(kind, seed=2)
    again.load_state_dict(saved["net"])
    assert torch.equal(run(again, x[9:], tuple(saved["state"]))[0], out[9:])


def test_off_lets_everything_through():
    net, x = small("off"), frames(5, 2)
    out, gate, state = run(net, x)
    assert torch.equal(out, x) and bool((gate == 1).all()) and state == ()
    assert list(net.parameters()) == []


@pytest.mark.parametrize("kind", ("attention", "gru"))
def test_the_gate_mixes_and_is_handed_out_without_gradient(kind):
    net, x = small(kind), frames(10, 3).requires_grad_(True)
    _, gate, _ = net.sequence(x, net.initial(3), never(10, 3))
    assert not gate.requires_grad and bool(((gate >= 0) & (gate <= 1)).all())
    with torch.no_grad():
        net.gate.bias.fill_(-60.0)
        shut, zero, _ = run(net, x)
        assert torch.allclose(shut, x) and float(zero.max()) < 1e-6
        net.gate.bias.fill_(60.0)
        told, one, _ = run(net, x)
    assert float(one[1:].min()) > 1 - 1e-6 and not torch.allclose(told[1:], x[1:])


def test_an_empty_memory_has_nothing_to_say():
    net, x = small(), frames(1, 3)[0]
    with torch.no_grad():
        net.gate.bias.fill_(60.0)
    out, gate, state = net(x, net.initial(3))
    assert torch.equal(out, x) and float(gate.max()) == 0
    assert (state[1] > 0).tolist() == [[True, False, False, False]] * 3, "the first is written"


def test_what_is_read_is_the_equation():
    """Two slots of four filled: scores by the written formula, the rest has no part."""
    net = small(top_k=2)
    slots, time = frames(1, 4, seed=3)[0][None], torch.tensor([[0.0, 3.0, 0.0, 0.0]])
    strength = torch.tensor([[0.9, 0.3, 0.0, 0.0]])
    clock = torch.tensor([5.0])
    x = frames(1, 1, seed=4)[0]
    with torch.no_grad():
        weight = net.attention(x, (slots, strength, time, torch.zeros(1, 4), clock))
        query = net.query(x + net.when(clock))[0]
        score = [
            float(
                strength[0, i].log() + query @ net.key(slots[0, i] + net.when(time[0, i])) / 8**0.5
            )
            for i in range(2)
        ]
    want = torch.tensor(score).softmax(0)
    torch.testing.assert_close(weight[0, :2], want, rtol=1e-4, atol=1e-6)
    assert float(weight[0, 2:].sum()) == 0
    one = small(top_k=1)
    one.load_state_dict(net.state_dict())
    with torch.no_grad():
        best = one.attention(x, (slots, strength, time, torch.zeros(1, 4), clock))
    assert best[0].tolist() == [float(i == int(want.argmax())) for i in range(4)]


def test_time_is_told_by_sines_and_cosines():
    net = small()
    told = net.when(torch.tensor([0.0, 2.0]))
    assert told[0].tolist() == [0.0] * 4 + [1.0] * 4
    angles = 2.0 * 1e4 ** -(np.arange(4) / 4)
    np.testing.assert_allclose(told[1].numpy(), [*np.sin(angles), *np.cos(angles)], rtol=1e-5)


def test_the_weakest_moment_goes_and_a_weaker_new_one_is_not_written():
    net = small(usage_weight=0.0, recency_weight=0.0, redundancy_weight=0.0)
    _, _, state = run(net, with_strength(net, [3.0, 1.0, 2.0, 4.0, 0.0, 5.0]))
    assert state[2][0].tolist() == [0.0, 5.0, 2.0, 3.0], "step 4 is weakest of all, 1 makes room"
    assert state[4].tolist() == [6.0]


def test_a_standing_scene_keeps_one_slot_its_last_view():
    net = small(usage_weight=0.0, recency_weight=0.0)
    x = with_strength(net, [0.0] * 12)
    x[3:, 0] = x[3, 0]  # from step 3 on nothing changes
    _, _, state = run(net, x)
    assert sorted(state[2][0].tolist()) == [0.0, 1.0, 2.0, 11.0]


def test_recency_lets_the_oldest_go_first():
    net = small(usage_weight=0.0, redundancy_weight=0.0, recency_weight=1.0)
    _, _, state = run(net, with_strength(net, [0.0] * 10))
    assert sorted(state[2][0].tolist()) == [6.0, 7.0, 8.0, 9.0]


def test_a_moment_that_is_read_is_kept():
    net = small(usage_weight=5.0, redundancy_weight=0.0, recency_weight=1.0)
    x = with_strength(net, [0.0] * 12)
    read = torch.zeros(1, 4)
    read[0, 2] = 1.0  # the slot of step 2 gets all the attention
    net.attention = lambda x, state: read * (state[1] > 0)
    _, _, state = run(net, x)
    assert sorted(state[2][0].tolist()) == [2.0, 9.0, 10.0, 11.0]
    assert float(state[3][0, 2]) == 1.0


def test_the_learned_strength_has_a_gradient_from_what_is_read_later():
    net = small()
    out, _, _ = net.sequence(frames(6, 4), net.initial(4), never(6, 4))
    out[-1].square().sum().backward()
    assert float(net.strength.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("kind", ("attention", "gru"))
def test_onnxruntime_agrees_over_50_steps(kind):
    """Exported as a robot's policy is, for any number of rows, the state carried by the caller."""
    net = memory(MemoryConfig(kind=kind)).eval()
    state = net.initial(2)
    names = ["x", *(f"state{i}" for i in range(len(state)))]
    outs = ["seen", "gate", *(f"next{i}" for i in range(len(state)))]
    file = io.BytesIO()
    torch.onnx.export(
        net, (torch.zeros(2, 128), state), file, input_names=names, output_names=outs,
        opset_version=17, dynamic_axes={name: {0: "B"} for name in names + outs}, dynamo=False,
    )  # fmt: skip
    onnx.checker.check_model(file.getvalue())
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    ours, theirs = net.initial(3), [part.numpy() for part in net.initial(3)]
    x = frames(50, 3, dim=128)
    x[20:26] = x[20]  # a standing scene too
    with torch.no_grad():
        for frame in x:
            seen, gate, ours = net(frame, ours)
            given = dict(zip(names, [frame.numpy(), *theirs], strict=True))
            told, told_gate, *theirs = session.run(None, given)
            np.testing.assert_allclose(told, seen.numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(told_gate, gate.numpy(), rtol=1e-4, atol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, mine.numpy(), rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_whatever_the_global_generator():
    for kind in ("attention", "gru"):
        torch.manual_seed(1)
        one = small(kind, seed=5)
        torch.manual_seed(2)
        two, three = small(kind, seed=5), small(kind, seed=6)
        for a, b, c in zip(one.parameters(), two.parameters(), three.parameters(), strict=True):
            assert torch.equal(a, b) and (a.ndim == 1 or not torch.equal(a, c))


def test_settings_and_shapes_are_checked():
    for bad in ({"kind": "lstm"}, {"dim": 7}, {"top_k": 17}, {"alike": 1.0}, {"horizon": 1},
                {"usage_weight": -1.0}):  # fmt: skip
        with pytest.raises(ValueError, match="got"):
            MemoryConfig(**bad)
    net = small()
    for x, first, word in (
        (frames(5, 2, dim=9), never(5, 2), r"x must be \(T, B, 8\)"),
        (frames(5, 2), never(5, 3), r"first must be \(5, 2\)"),
    ):
        with pytest.raises(ValueError, match=word):
            net.sequence(x, net.initial(2), first)
    with pytest.raises(ValueError, match="truncate must be >= 1"):
        net.sequence(frames(5, 2), net.initial(2), never(5, 2), truncate=0)


def test_the_paper_has_128_features_and_16_slots():
    net = memory(MemoryConfig())
    assert isinstance(net, AttentionMemory)
    assert [tuple(part.shape) for part in net.initial(3)] == [
        (3, 16, 128), (3, 16), (3, 16), (3, 16), (3,)
    ]  # fmt: skip


CLASSES, STEPS = 4, 61
"""Of the cue; frames from the one that shows it to the one that asks for it."""


def cued(rows, generator):
    """Frames (61, rows, 8) and the answers (rows,): the first frame shows one of four things and a
    flag, 59 show a thing each and no flag, the last shows nothing but a question."""
    shown = torch.randint(CLASSES, (STEPS, rows), generator=generator)
    x = torch.randn(STEPS, rows, 8, generator=generator)
    x[..., :CLASSES] = nn.functional.one_hot(shown, CLASSES).float()
    x[..., CLASSES : CLASSES + 2] = 0
    x[0, :, CLASSES] = 1
    x[-1, :, :CLASSES], x[-1, :, CLASSES + 1] = 0, 1
    return x, shown[0]


def told_right(kind, updates, lr):
    """Share of 512 new episodes that are answered rightly after so many updates of 64 episodes."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = memory(MemoryConfig(kind=kind, dim=32, horizon=100))
    see, answer = nn.Linear(8, 32), nn.Linear(32, CLASSES)
    weights = [*net.parameters(), *see.parameters(), *answer.parameters()]
    adam = torch.optim.Adam(weights, lr)
    for _ in range(updates):
        x, right = cued(64, generator)
        out, _, _ = net.sequence(see(x), net.initial(64), never(STEPS, 64))
        loss = nn.functional.cross_entropy(answer(out[-1]), right)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
    x, right = cued(512, generator)
    with torch.no_grad():
        out, _, _ = net.sequence(see(x), net.initial(512), never(STEPS, 512))
        return float((answer(out[-1]).argmax(dim=1) == right).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "updates", "lr"), [("attention", 60, 3e-3), ("gru", 160, 5e-3)])
def test_a_cue_is_told_60_steps_later(kind, updates, lr):
    off = told_right("off", updates, lr)
    assert off < 0.35, "of four things one is right by chance"
    assert told_right(kind, updates, lr) > 0.9 > off + 0.5

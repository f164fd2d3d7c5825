"""The policy: exact likelihoods, one step against sequences, training, and the torch-free file."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from evovla.actor import Actor, OnnxVLA
from evovla.cloning import CloneConfig, Cloner, Demonstrations, chunks, clone
from evovla.heads import FlowHead, L1Head
from evovla.memory import MemoryConfig
from evovla.policy import PART, VLAConfig, VLAPolicy, policy_texts
from evovla.policy_file import load_vla, save_vla
from evovla.stage_text import from_steps
from evovla.stages import Step as StageStep
from learning.policy import each
from learning.policy_file import OnnxPolicy, PolicyFileError
from learning.ppo import PPO, PPOConfig
from learning.vec_env import EnvSpec, Step

TEXTS = ("reach the red cube", "lift the red cube", "all is done")
WIDTH = 16
KINDS = ("off", "attention", "gru")
HEADS = ("l1", "flow")


def policy(kind: str = "off", views: tuple[str, ...] = (), **changes: Any) -> VLAPolicy:
    memory = MemoryConfig(kind=kind, dim=WIDTH, slots=4, top_k=2, horizon=8)
    config = VLAConfig(
        4, TEXTS, action_dim=2, views=views, side=16, channels=8, maps=4, width=WIDTH,
        text_width=8, buckets=64, chunk=3, memory=memory,
    )  # fmt: skip
    net = VLAPolicy(replace(config, **changes))
    with torch.no_grad():  # a fresh head says 0 for everything
        for p in net.head.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return net


def looks(lead: tuple[int, ...], views: int = 0, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(*lead, 4)).astype(np.float32)
    state[..., -1] = rng.integers(0, 3, lead) / 2
    if not views:
        return torch.from_numpy(state)
    frames = rng.integers(0, 256, (*lead, views, 16, 16, 3), dtype=np.uint8)
    return {"state": torch.from_numpy(state), "frames": torch.from_numpy(frames)}


class Reach:
    """A point that must go to where a number says; seen as numbers, or with frames beside."""

    def __init__(self, n: int = 16, views: int = 0) -> None:
        self.spec = EnvSpec(n, 4, 2, 1, 0.05, 10, (views, 16, 16, 3) if views else ())
        self.rng = np.random.default_rng(0)
        self.away = np.zeros((n, 2))
        self.t = np.zeros(n, np.int64)

    def _obs(self) -> Any:
        n = len(self.t)
        state = np.concatenate([self.away, np.zeros((n, 2))], axis=1).astype(np.float32)
        if not self.spec.frames:
            return state
        return {"state": state, "frames": np.zeros((n, *self.spec.frames), np.uint8)}

    def _begin(self, rows: np.ndarray) -> None:
        self.away[rows] = self.rng.uniform(-1, 1, (int(rows.sum()), 2))
        self.t[rows] = 0

    def reset(self) -> Any:
        self._begin(np.ones(len(self.t), bool))
        return self._obs()

    def explore(self) -> np.ndarray:
        return np.zeros((len(self.t), 1), np.float32)

    def step(self, action: np.ndarray) -> Step:
        assert np.abs(action).max() <= 1
        self.away = self.away - 0.3 * action
        self.t += 1
        reward = -np.linalg.norm(self.away, axis=1).astype(np.float32)
        over = self.t >= 10
        final = self._obs()
        self._begin(over)
        terms = {"success": -reward < 0.2}
        return Step(self._obs(), reward, over & False, over, final, self.explore(), terms)

    def state_dict(self) -> dict[str, Any]:
        return {"away": self.away, "t": self.t, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.away, self.t = state["away"].copy(), state["t"].copy()
        self.rng.bit_generator.state = state["rng"]


# likelihoods


def test_the_flows_density_is_that_of_its_chain_of_gaussians_by_hand():
    head = FlowHead(WIDTH, chunk=3, execute=1, action_dim=1, steps=2)
    y, std = torch.randn(1, WIDTH), torch.tensor([[0.5], [0.25]])
    noise = torch.tensor([[0.3, 1.0, -2.0]])
    trace, action = head.draw(y, noise, std.log())
    x0, x1, x2 = (trace[:, k : k + 1, None] for k in range(3))
    for before, after, t, s, e in ((x0, x1, 0.0, 0.5, 1.0), (x1, x2, 0.5, 0.25, -2.0)):
        mean = before + head.velocity(y, before, torch.tensor([t])) / 2
        assert torch.allclose(after, mean + s * e)
    # the density of each step: exp(-e^2 / 2) / (s sqrt(2 pi)), x_0 left out
    want = -0.5 * (1.0**2 + 2.0**2) - math.log(0.5) - math.log(0.25) - math.log(2 * math.pi)
    assert float(head.log_prob(y, trace, std.log())) == pytest.approx(want, abs=1e-5)
    assert torch.equal(action, x2.flatten(1))


def test_the_first_actions_of_a_flow_do_not_see_the_later_ones():
    head = FlowHead(WIDTH, chunk=4, execute=2, action_dim=2, steps=3)
    y, x, t = torch.randn(5, WIDTH), torch.randn(5, 4, 2), torch.rand(5)
    other = x.clone()
    other[:, 2:] += 1.0
    whole, changed = head.velocity(y, x, t), head.velocity(y, other, t)
    assert torch.equal(whole[:, :2], changed[:, :2])
    assert not torch.allclose(whole[:, 2:], changed[:, 2:])
    assert torch.allclose(head.velocity(y, x[:, :2], t), whole[:, :2], atol=1e-6)


def test_the_l1_heads_density_is_the_gaussian_of_the_executed_actions():
    head = L1Head(WIDTH, chunk=3, execute=2, action_dim=2)
    y, log_std = torch.randn(6, WIDTH), torch.tensor([-1.0, 0.5])
    trace, action = head.draw(y, torch.randn(6, 4), log_std)
    mean = head.best(y)[:, :4]
    want = torch.distributions.Normal(mean, log_std.exp().repeat(2)).log_prob(trace).sum(1)
    assert torch.allclose(head.log_prob(y, trace, log_std), want, atol=1e-5)
    assert torch.equal(action, trace)


def test_the_flow_learns_two_ways_where_l1_takes_the_middle():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    head, l1 = FlowHead(WIDTH, 1, 1, 1, 8), L1Head(WIDTH, 1, 1, 1)
    y, there = torch.zeros(256, WIDTH), torch.ones(256, 1)
    adam = torch.optim.Adam([*head.parameters(), *l1.parameters()], lr=1e-2)
    for _ in range(500):
        way = torch.randint(2, (256, 1, 1), generator=g).float() * 1.6 - 0.8  # -0.8 or 0.8
        adam.zero_grad()
        (head.loss(y, way, there, g).mean() + l1.loss(y, way, there, g).mean()).backward()
        adam.step()
    noise = torch.randn(256, head.trace_dim, generator=g)
    drawn = head.draw(y, noise, torch.full((8, 1), -9.0))[1]
    near = (drawn.abs() - 0.8).abs() < 0.3
    assert float(near.float().mean()) > 0.8
    assert 0.3 < float((drawn > 0).float().mean()) < 0.7
    assert float(l1.loss(y, way, there, g).mean()) > 0.6  # nothing is nearer than 0.8


# steps and sequences


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("views", [(), ("side", "wrist")])
def test_sequences_say_what_single_steps_said(kind: str, head: str, views: tuple[str, ...]):
    net = policy(kind, views, head=head)
    steps, rows = 6, 3
    x = net.normalize(looks((steps, rows), len(views)))
    first = torch.zeros(steps, rows, dtype=torch.bool)
    first[0], first[3, 1] = True, True
    noise = torch.randn(steps, rows, net.trace_dim)
    sample, memory = net.sampler(), torch.zeros(rows, net.memory_dim)
    traces, log_probs, values = [], [], []
    for t in range(steps):
        memory = memory.masked_fill(first[t][:, None], 0.0)
        now = each(lambda part, t=t: part[t], x)
        drawn = sample(now, memory, noise[t])
        traces.append(drawn.trace)
        log_probs.append(net.log_prob(now, drawn.trace, memory).detach())
        values.append(net.value(now, memory).detach())
        memory = drawn.memory
    trace, want, value = (torch.stack(v) for v in (traces, log_probs, values))
    begin = torch.zeros(rows, net.memory_dim)
    if kind == "off":
        x, trace, first = (each(lambda p: p.flatten(0, 1), v) for v in (x, trace, first))
        want, value = want.flatten(), value.flatten(0, 1)
    got, judged = net.evaluate(x, trace, begin, first)
    assert torch.allclose(got, want, atol=1e-4) and torch.allclose(judged, value, atol=1e-5)


def test_what_is_executed_counts_as_much_in_cloning_as_all_that_is_foreseen():
    head = L1Head(WIDTH, chunk=3, execute=1, action_dim=1)
    torch.nn.init.zeros_(head.out.weight)
    head.out.bias.data = torch.tensor([1.1, 0.1, 3.1])
    y, chunk = torch.zeros(1, WIDTH), torch.zeros(1, 3, 1)
    g = torch.Generator()
    # beyond 0.2 an error e costs e - 0.1, below e^2 / 0.4: 1, 0.025 and 3, weighed 2, 1 and 1
    loss = head.loss(y, chunk, torch.ones(1, 3), g)
    assert float(loss) == pytest.approx((2 * 1 + 0.025 + 3) / 4)
    assert float(head.loss(y, chunk, torch.tensor([[1.0, 1.0, 0.0]]), g)) == pytest.approx(
        2.025 / 3
    )


def test_more_rows_than_are_looked_at_at_once_are_judged_alike():
    net = policy()
    x = net.normalize(looks((PART + 5,)))
    nothing = torch.zeros(PART + 5, 0)
    assert torch.allclose(net.value(x, nothing)[-5:], net.value(x[-5:], nothing[-5:]))


def test_the_gradient_of_a_likelihood_reaches_what_was_seen_steps_before():
    net = policy("attention")
    x = looks((5, 2)).requires_grad_()
    trace = torch.randn(5, 2, net.trace_dim)
    first = torch.zeros(5, 2, dtype=torch.bool)
    first[0] = True
    log_prob, value = net.evaluate(x, trace, torch.zeros(2, net.memory_dim), first)
    (grad,) = torch.autograd.grad(log_prob[4, 0], x, retain_graph=True)
    assert float(grad[0, 0].abs().sum()) > 0 and float(grad[:, 1].abs().sum()) == 0
    # an error of the value never moves what the actor sees with
    grads = torch.autograd.grad(value.sum(), list(net.groups()[0]), allow_unused=True)
    assert all(g is None for g in grads)


def test_the_stage_decides_what_is_told_and_words_are_shared_between_texts():
    net = policy()
    x = looks((1,)).repeat(3, 1)
    x[:, -1] = torch.tensor([0.0, 0.49, 1.0])  # stages 0, 1 and all done
    told = net.told()
    about = net.look(x).about
    assert torch.equal(about[:, 4:12], told)
    assert torch.equal(policy().words[0, 1:], policy().words[1, 1:])  # "the red cube"


def test_texts_come_from_a_stage_dictionary():
    steps = (StageStep("above", "red cube"), StageStep("reach", "red cube"))
    dictionary = from_steps("t", "take the red cube", steps)
    texts = policy_texts(dictionary)
    assert len(texts) == 3 and texts[0] == dictionary.stages[0].positive


@pytest.mark.parametrize(
    "changes",
    [{"texts": ("one",)}, {"side": 18}, {"execute": 9}, {"head": "l3"}, {"width": 64},
     {"stage_column": 9}, {"views": ("side", "side")}],
)  # fmt: skip
def test_a_wrong_setting_is_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="must be|wanted"):
        replace(VLAConfig(9, TEXTS), **changes)


def test_the_shipped_size_is_small():
    memory = MemoryConfig(kind="attention")
    net = VLAPolicy(VLAConfig(60, TEXTS * 7, views=("side", "wrist"), head="flow", memory=memory))
    assert 4 * sum(p.numel() for p in net.parameters()) < 2e6  # bytes


# training


@pytest.mark.parametrize(("kind", "head", "views"), [
    ("off", "l1", 0), ("attention", "l1", 0), ("gru", "flow", 2), ("off", "flow", 0),
])  # fmt: skip
def test_ppo_starts_from_a_ratio_of_one_and_goes_on_bit_for_bit(
    kind: str, head: str, views: int, tmp_path
):
    names = ("side", "wrist")[:views]
    config = PPOConfig(num_steps=8, minibatch=128, epochs=1, sequence=4)

    def fresh() -> PPO:
        return PPO(Reach(views=views), config, net=policy(kind, names, head=head), seed=3)

    kls: list[float] = []
    ppo = fresh()
    ppo.learn(128, lambda m: kls.append(m["loss/kl"]))
    assert abs(kls[0]) < 1e-5  # one step per epoch, so the old and the new are the same
    ppo.save(tmp_path)
    again = fresh().load(tmp_path)
    for learner in (ppo, again):
        learner.learn(256)
    pairs = zip(ppo.net.parameters(), again.net.parameters(), strict=True)
    assert ppo.skipped == 0 and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("head", HEADS)
def test_ppo_improves_either_head(head: str):
    net = VLAPolicy(policy(head=head, init_log_std=-0.7).config)
    means: list[float] = []
    config = PPOConfig(num_steps=20, minibatch=320, epochs=4, lr=3e-3, ent_coef=0.0)
    PPO(Reach(32), config, net=net, seed=1).learn(32 * 20 * 16, lambda m: means.append(m["return"]))
    assert means[-1] > means[0] + 3.0


def expert(count: int = 40, views: int = 0) -> Demonstrations:
    env, seen, acts = Reach(count, views), [], []
    obs = env.reset()
    for _ in range(10):
        state = obs["state"] if views else obs
        action = np.clip(state[:, :2] / 0.3, -1, 1).astype(np.float32)
        seen.append(obs)
        acts.append(action)
        obs = env.step(action).obs
    stacked = each(lambda *p: torch.from_numpy(np.stack(p, axis=1)).flatten(0, 1), *seen)
    action = torch.from_numpy(np.stack(acts, axis=1)).flatten(0, 1)
    return Demonstrations(stacked, action, torch.full((count,), 10), torch.ones(len(action)))


def test_chunks_end_with_their_episode():
    got, there = chunks(torch.arange(5.0)[:, None], torch.tensor([2, 3]), 3)
    assert got[..., 0].tolist() == [[0, 1, 1], [1, 1, 1], [2, 3, 4], [3, 4, 4], [4, 4, 4]]
    assert there.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(("kind", "head"), [("off", "l1"), ("off", "flow"), ("gru", "l1")])
def test_a_clone_does_what_was_shown(kind: str, head: str):
    net = policy(kind, head=head)
    shown = expert()
    found = clone(net, shown, CloneConfig(steps=250, minibatch=100, lr=3e-3, log_std=-2.0))
    assert found["critic"] < 0.1 and found["actor"] < (0.1 if head == "l1" else 0.6)
    env, actor = Reach(20), Actor(net, 20)
    obs = env.reset()
    for _ in range(6):
        step = env.step(actor(obs))
        obs = step.obs
    assert float(np.linalg.norm(env.away, axis=1).mean()) < 0.15
    each_std = math.exp(-2.0) / (2 if head == "flow" else 1)  # of one of four steps
    assert net.log_std.detach().exp().flatten()[0] == pytest.approx(each_std)


def test_the_mix_pulls_a_policy_to_what_is_shown_until_episodes_succeed():
    net = policy()
    shown = expert()
    cloner = Cloner(net, shown, 100)
    with torch.no_grad():
        before = float(cloner.loss(torch.Generator().manual_seed(0)))
    config = PPOConfig(num_steps=8, minibatch=128, epochs=4, lr=3e-3, clone_coef=2.0)
    ppo = PPO(Reach(), config, net=net, demonstrations=cloner.loss)
    weights: list[float] = []
    ppo.learn(128 * 12, lambda m: weights.append(m["loss/clone_weight"]))
    with torch.no_grad():
        after = float(cloner.loss(torch.Generator().manual_seed(0)))
    assert weights[0] == 2.0 and weights[-1] < weights[1] and after < 0.6 * before
    with pytest.raises(ValueError, match="go together"):
        PPO(Reach(), config, net=policy())


def test_demonstrations_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="as many steps"):
        Demonstrations(torch.zeros(5, 4), torch.zeros(5, 2), torch.tensor([4]))
    with pytest.raises(ValueError, match="finite"):
        Demonstrations(torch.full((5, 4), math.nan), torch.zeros(5, 2), torch.tensor([5]))


# the file


SPECS: dict[str, Any] = {
    "observation": {"dim": 4}, "action": {"dim": 2}, "recipe": {}, "seeds": [0], "evaluation": {},
    "rate_hz": 20.0,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "head", "views"), [
    ("off", "l1", ()), ("attention", "flow", ("side", "wrist")), ("gru", "l1", ("side",)),
])  # fmt: skip
def test_the_robots_file_gives_the_chunks_and_memories_of_torch_over_an_episode(
    kind: str, head: str, views: tuple[str, ...], tmp_path
):
    net = policy(kind, views, head=head)
    net.update_normalizer(torch.randn(64, 4) * 3 + 1)
    loaded, robot = load_vla(save_vla(tmp_path / "p", net, **SPECS)), OnnxVLA(tmp_path / "p")
    assert loaded.config == net.config and robot.memory_dim == net.memory_dim
    memories = [np.zeros((3, net.memory_dim), np.float32)] * 2
    for t in range(12):
        obs = each(lambda part: part.numpy(), looks((3,), len(views), seed=t))
        pairs = [m.chunk(obs, memory) for m, memory in zip((loaded, robot), memories, strict=True)]
        (a, memory_a), (b, memory_b) = pairs
        np.testing.assert_allclose(b, a, atol=2e-5)
        np.testing.assert_allclose(memory_b, memory_a, atol=2e-4)
        memories = [memory_a, memory_b]
    assert a.shape == (3, 3, 2) and np.abs(a).max() <= 1


def test_a_row_that_is_not_finite_gets_nan_and_keeps_its_memory(tmp_path):
    net = policy("gru")
    robot = OnnxVLA(save_vla(tmp_path / "p", net, **SPECS))
    obs = looks((2,)).numpy()
    obs[0, 1] = np.nan
    memory = np.full((2, WIDTH), 0.5, np.float32)
    chunk, after = robot.chunk(obs, memory)
    assert np.isnan(chunk[0]).all() and np.isfinite(chunk[1]).all()
    assert (after[0] == 0.5).all() and (after[1] != 0.5).any()


def test_the_robots_path_imports_no_torch(tmp_path):
    save_vla(tmp_path / "p", policy("attention"), **SPECS)
    code = (
        "import sys, numpy as np\n"
        "from evovla.actor import Actor, OnnxVLA\n"
        "actor = Actor(OnnxVLA(sys.argv[1]), 2)\n"
        "print(actor(np.zeros((2, 4), np.float32)).shape, 'torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p")], capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert run.stdout.split("\n")[0] == "(2, 2) False"


def test_a_file_of_another_kind_is_refused(tmp_path):
    folder = save_vla(tmp_path / "p", policy(), **SPECS)
    with pytest.raises(PolicyFileError):
        OnnxPolicy(folder)
    from learning.policy_file import load_policy, save_policy
    from learning.ppo import ActorCritic

    with pytest.raises(PolicyFileError):
        load_policy(folder)
    plain = save_policy(tmp_path / "q", ActorCritic(4, 2), **SPECS)
    with pytest.raises(PolicyFileError, match="kind"):
        load_vla(plain)
    with pytest.raises(PolicyFileError, match="vision"):
        OnnxVLA(plain)
    with pytest.raises(ValueError, match="dim"):
        save_vla(tmp_path / "r", policy(), **SPECS | {"action": {"dim": 6}})


# playing chunks


class Counting:
    """Chunks that say how often a row was looked at, which is what it remembers."""

    memory_dim = 1

    def chunk(self, obs: Any, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base = 10 * memory[:, None, :]
        return (base + np.arange(3)[None, :, None]).astype(np.float32), memory + 1


def test_an_actor_plays_as_many_actions_of_a_chunk_as_it_is_told():
    obs = np.zeros((2, 4), np.float32)
    first, whole = Actor(Counting(), 2, 1), Actor(Counting(), 2, 3)
    assert [float(first(obs)[0, 0]) for _ in range(3)] == [0, 10, 20]
    assert [float(whole(obs)[0, 0]) for _ in range(4)] == [0, 1, 2, 10]
    whole.reset(np.array([1]))  # forgets, and looks anew while row 0 plays on
    assert whole(obs)[:, 0].tolist() == [11, 0]
    with pytest.raises(ValueError, match="execute"):
        Actor(Counting(), 2, 4)(obs)

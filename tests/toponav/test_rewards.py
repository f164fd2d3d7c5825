"""What the two levels are paid, term by term."""

import math

import numpy as np
import pytest

from toponav.rewards import Account, MetaRewardConfig, SubRewardConfig, SubRewards, meta_rewards


def test_a_sub_goal_is_paid_for_what_it_brought():
    c = MetaRewardConfig(goal=10.0, time=-0.05, node=0.1, area=1.0, area_m2=50.0, closed=0.2)
    terms = meta_rewards(c, Account(2.0, 3, 40.0), Account(12.0, 5, 65.0, True), closed=True)
    assert terms == pytest.approx(
        {"goal": 10.0, "time": -0.5, "node": 0.2, "area": 0.5, "closed": 0.2}
    )
    none = meta_rewards(c, Account(2.0, 3, 40.0), Account(2.0, 2, 39.0), closed=False)
    assert none == {"goal": 0.0, "time": 0.0, "node": 0.0, "area": 0.0, "closed": 0.0}
    with pytest.raises(ValueError, match="after"):
        meta_rewards(c, Account(2.0, 0, 0.0), Account(1.0, 0, 0.0), closed=False)


def pay(rewards, way, next_way, xy=(0.2, 0.2), next_xy=(0.3, 0.2), **flags):
    n = rewards.num_envs
    flag = {name: np.full(n, flags.get(name, False)) for name in ("reached", "touched", "ended")}
    return rewards.pay(
        np.tile(xy, (n, 1)), np.tile(next_xy, (n, 1)), np.full(n, way), np.full(n, next_way), **flag
    )


def test_the_potential_is_the_worth_of_driving_straight_there():
    c = SubRewardConfig(subgoal=2.0, gamma=0.9, stride_m=0.5)
    rewards = SubRewards(1, c)
    assert pay(rewards, 3.0, 2.5)["progress"][0] == pytest.approx(
        0.0
    )  # a full stride earns nothing
    # standing: (gamma - 1) Phi, Phi = 2 * .9^6
    assert pay(rewards, 3.0, 3.0)["progress"][0] == pytest.approx(-0.1 * 2 * 0.9**6)
    hit = pay(rewards, 0.5, 0.1, reached=True)
    assert hit["subgoal"][0] + hit["progress"][0] == pytest.approx(2 - 2 * 0.9)
    assert pay(rewards, math.inf, math.inf)["progress"][0] == 0.0


@pytest.mark.parametrize("ways", [[4.0, 3.0, 5.0, 2.0, 0.4], [4.0, 4.0, 4.0, 4.0, 0.4]])
def test_shaping_adds_the_same_to_every_way_to_the_sub_goal(ways):
    # Ng 1999: the discounted sum telescopes to -Phi(start), whatever was driven
    c = SubRewardConfig()
    rewards, total = SubRewards(1, c), 0.0
    for k, (way, after) in enumerate(zip(ways[:-1], ways[1:], strict=True)):
        last = k == len(ways) - 2
        total += c.gamma**k * pay(rewards, way, after, reached=last)["progress"][0]
    assert total == pytest.approx(-c.subgoal * c.gamma ** (ways[0] / c.stride_m))


def test_entering_a_place_pays_one_over_the_root_of_its_visits():
    rewards = SubRewards(2, SubRewardConfig(visits=0.1, place_m=1.0))
    here, there = (0.5, 0.5), (1.5, 0.5)
    first = pay(rewards, 1, 1, here, there)["visits"]
    stay = pay(rewards, 1, 1, there, (1.6, 0.5))["visits"]
    pay(rewards, 1, 1, there, here)
    again = pay(rewards, 1, 1, here, there, ended=True)["visits"]
    assert first == pytest.approx([0.1, 0.1]) and stay.tolist() == [0.0, 0.0]
    assert again == pytest.approx([0.1 / math.sqrt(2)] * 2)
    anew = pay(rewards, 1, 1, here, there)["visits"]
    assert anew == pytest.approx([0.1, 0.1])  # a new episode has forgotten


def test_rows_must_fit():
    with pytest.raises(ValueError, match="way_m must be"):
        SubRewards(2).pay(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(1), np.zeros(2),
                          np.zeros(2, bool), np.zeros(2, bool), np.zeros(2, bool))  # fmt: skip

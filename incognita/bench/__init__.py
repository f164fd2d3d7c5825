"""``incognita bench``: one command per claim, the baseline in the same run.

Every command lives in a module of its own with a ``register(app)``, imported when the command is
run: ``--help`` stays quick, and a module that cannot be imported spoils no other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import typer
from typer.main import get_command

app = typer.Typer(
    help="Measure what the README claims; exit code 1 where a target is missed.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

COMMANDS = {
    "agv-paper": ("agv", "Four scenes of RND-AGV beside PPO, RND-PPO, count and ICM (4 core-h)."),
    "agv-far": ("agv", "Sparse goals 30 to 40 m away (about 1 core-hour)."),
    "agv-warehouse": ("agv", "100 unseen warehouses beside classical planners (0.3 core-hours)."),
    "barn": ("agv", "BARN worlds x 10 runs beside classical planners."),
    "explore": ("explore", "Grid maps explored by classical explorers (0.3 core-hours)."),
    "goal": ("goal", "Goals in unseen mazes and rooms beside H-DQN (0.3 core-hours)."),
    "find": ("find", "Things found by class in unseen furnished floors (0.3 core-hours)."),
    "reward": ("reward", "The reward model on unseen things, words, cameras (1.5 core-hours)."),
    "reward-rl": ("reward_rl", "PPO on the reward model's scores beside the truth (5 core-hours)."),
    "reward-loop": ("reward_loop", "Robot drives recorded, scored, tuned on; before and after."),
    "reward-ladder": ("reward_ladder", "Offline error against success in training (2 core-hours)."),
    "evovla": ("evovla", "Clone, sparse PPO and each part of EvoVLA's reward (15 core-hours)."),
    "evovla-stages": ("evovla_stages", "Stages believed on unseen episodes (2 core-hours)."),
    "evovla-pose": ("evovla_pose", "Pose curiosity under another light (0.1 core-hours)."),
    "stuck": ("stuck", "Explorations that end elsewhere in a loop (0.1 core-hours)."),
    "terrain": ("terrain", "Energy over unseen hills beside the shortest way (0.1 core-hours)."),
    "manipulation": ("manipulation", "Experts of the long tasks, strict beside weak; speed."),
    "lifelong": ("lifelong", "Shut doors, wrong edges, kidnappings on unseen floors (0.4 core-h)."),
    "soak": ("lifelong", "An hour of exploring and patrolling: memory and caps (0.2 core-hours)."),
    "nav": ("nav", "Environment steps against Gymnasium's vector environments."),
    "lidar": ("lidar", "Scans against `mj_multiRay`, speed and error."),
    "render": ("render", "64 x 64 frames against `mujoco.Renderer`."),
    "store": ("store", "Episode writes and random frames against chunked Zarr."),
    "ppo": ("ppo", "Time to a success rate, samples per second, against Stable-Baselines3."),
    "rnd": ("rnd", "What RND adds to a PPO update."),
    "serve": ("serve", "What the reward service adds to a model, and how it bears overload."),
    "reward-faults": ("reward_faults", "Hostile media, overload, dead engines, SIGTERM: R1-R13."),
    "faults": ("faults", "Kills, flipped bits, full disks, bad numbers and hostile files."),
}
"""Command -> module of this folder and its line of help."""


def _forward(name: str, module: str, about: str) -> Callable[[typer.Context], None]:
    """A command that imports its module and hands it the arguments."""

    def run(ctx: typer.Context) -> None:
        loaded = importlib.import_module(f".{module}", __name__)
        if not hasattr(loaded, "register"):  # a script with a parser of its own
            raise SystemExit(loaded.main(ctx.args))
        real = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        real.callback()(lambda: None)  # a group even with one command
        loaded.register(real)
        above = ctx.command_path.rpartition(" ")[0]
        code = get_command(real).main([name, *ctx.args], prog_name=above, standalone_mode=False)
        if isinstance(code, int) and code:
            raise SystemExit(code)  # an Exit would come back to our caller as a plain value

    run.__doc__ = about
    return run


for _name, (_module, _about) in COMMANDS.items():
    app.command(
        _name,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_forward(_name, _module, _about))

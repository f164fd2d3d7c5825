"""Checks of the machine that come before an install: `check_machine.py python|gl`.

`python` runs under whatever Python the user has, so this file keeps to old syntax.
"""

import os
import subprocess
import sys

FRAME = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 8, 8) as renderer:
    renderer.update_scene(data)
    assert renderer.render().shape == (8, 8, 3)
"""

NO_GL = """incognita: MuJoCo cannot render off screen here (tried MUJOCO_GL=%s).
Install one of these two and run make again:
    apt-get install libegl1 libgl1-mesa-dri
    apt-get install libosmesa6
Last error: %s
"""


def check_python():
    """Exit with a message unless this Python is 3.11, 3.12 or 3.13."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            "incognita: Python 3.11, 3.12 or 3.13 is needed, but %s is %d.%d. "
            "Name another one: make PYTHON=python3.12 test"
            % (sys.executable, sys.version_info[0], sys.version_info[1])
        )


def check_gl():
    """Print the MUJOCO_GL value that renders a frame here, or exit and say what to install."""
    if sys.platform == "darwin":
        print("cgl")
        return
    chosen = os.environ.get("MUJOCO_GL")
    backends = [chosen] if chosen else ["egl", "osmesa"]
    error = ""
    for backend in backends:
        run = subprocess.run(
            [sys.executable, "-c", FRAME],
            env=dict(os.environ, MUJOCO_GL=backend),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        if run.returncode == 0:
            print(backend)
            return
        error = (run.stderr.strip().splitlines() or ["exit status %d" % run.returncode])[-1]
    sys.exit(NO_GL % (" and ".join(backends), error))


if __name__ == "__main__":
    checks = {"python": check_python, "gl": check_gl}
    if len(sys.argv) != 2 or sys.argv[1] not in checks:
        sys.exit("usage: check_machine.py python|gl")
    checks[sys.argv[1]]()

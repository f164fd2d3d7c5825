"""What is in deploy/ and on its page of the docs, held to each other and to the code."""

import ast
import json
import re
import subprocess
import sys

import pytest
import yaml

from reward_vlm.backends import open_model


@pytest.fixture(scope="module")
def services(root):
    return yaml.safe_load((root / "deploy" / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def flags(services):
    """Flag -> value of the engine."""
    pairs = (word.partition("=") for word in services["services"]["engine"]["command"][1:])
    return {name: value for name, _, value in pairs}


def test_only_the_gateway_is_reached_and_only_from_this_machine(services):
    gateway, engine = services["services"]["gateway"], services["services"]["engine"]
    assert gateway["ports"] == ["127.0.0.1:8300:8300"]
    assert not {"ports", "expose", "network_mode"} & engine.keys()
    assert engine["networks"] == ["engine"]
    assert services["networks"]["engine"] == {"internal": True}
    assert set(gateway["networks"]) == {"front", "engine"}


def test_the_engine_is_held_short(services, flags):
    engine = services["services"]["engine"]
    frames = json.loads(flags["--media-io-kwargs"])["video"]["num_frames"]
    assert frames > 0  # -1 would lift the cap
    assert json.loads(flags["--limit-mm-per-prompt"]) == {"video": 1, "image": 0}
    assert flags["--allowed-media-domains"].endswith(".invalid")
    assert flags["--logprobs-mode"] == "raw_logprobs"
    forbidden = ("trust-remote-code", "local-media", "mm-embeds", "0.0.0.0:8000")
    text = json.dumps(engine)
    assert not [word for word in forbidden if word in text]
    environment = engine["environment"]
    assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert not [name for name in environment if "DEV" in name]
    assert "${ENGINE_KEY:?" in environment["VLLM_API_KEY"]
    version = re.fullmatch(r"vllm/vllm-openai:v(\d+)\.(\d+)\.\d+", engine["image"])
    assert version and (int(version[1]), int(version[2])) > (0, 20)
    assert engine["volumes"][0].endswith(":ro")


def test_gateway_and_engine_agree(services, flags):
    gateway = services["services"]["gateway"]
    spec = gateway["command"][1].replace("${REVISION:?the commit of the checkpoint}", "c0ffee")
    model = open_model(spec)
    assert model.info.name == flags["--served-model-name"] and model.info.revision == "c0ffee"
    assert spec.startswith(f"openai:http://engine:{flags['--port']}#")
    assert model.info.sampling.most <= json.loads(flags["--media-io-kwargs"])["video"]["num_frames"]
    assert model.config.top_logprobs <= int(flags["--max-logprobs"])
    assert model.info.max_batch * model.info.workers <= int(flags["--max-num-seqs"])
    assert model.config.key_env in gateway["environment"]
    side, most = model.info.sampling.side, model.info.sampling.most
    tokens = (side // 32) ** 2 * most // 2  # 32 by 32 pixels of 2 frames are one
    assert tokens + 1000 < int(flags["--max-model-len"])
    model.close()


def test_the_page_says_what_the_engine_is_started_with(root, flags):
    page = (root / "docs" / "reward_server.md").read_text()
    started = page.replace("'", "").replace("\\\n", " ")
    for name, value in flags.items():
        told = "--host=127.0.0.1" if name == "--host" else f"{name}={value}".removesuffix("=")
        assert told in started, name
        assert f"`{name}" in page or name == "--port", f"{name} is not explained"


def test_the_gateway_s_image_is_not_root_and_takes_the_locked_versions(root):
    text = (root / "deploy" / "Dockerfile").read_text()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line[:1].isupper()]
    assert [rest for word, rest in lines if word == "USER"] == ["reward"]
    (entry,) = [json.loads(rest) for word, rest in lines if word == "ENTRYPOINT"]
    assert entry[:2] == ["incognita", "serve"]
    assert ":latest" not in text and "secret" not in text.lower()
    pattern = re.search(r"grep -oE '([^']+)'", text)
    assert pattern
    pins = re.findall(pattern[1], (root / "requirements" / "ci.lock").read_text(), re.MULTILINE)
    assert {"fastapi", "uvicorn", "transformers"} <= {pin.partition("==")[0] for pin in pins}
    copied = (root / "deploy" / "Dockerfile.dockerignore").read_text().split()
    setup = ast.parse((root / "setup.py").read_text())
    rooms = next(n for n in setup.body if ast.unparse(n).startswith("ROOMS"))
    assert {f"!{room}" for room in ast.literal_eval(rooms.value)} <= set(copied)


def test_the_ray_deployment_says_what_is_missing(root):
    code = (
        "import sys; sys.modules['ray'] = None; import runpy\n"
        f"runpy.run_path({str(root / 'deploy' / 'ray_serve.py')!r})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'ray[serve]'" in run.stderr

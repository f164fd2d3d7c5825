import sys

import pytest

from reward_vlm.backends import open_model
from reward_vlm.backends.vlm_input import SAMPLING

ENGINE = "openai:http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [("gpt", "openai:URL#MODEL"), ("small:", "small:FOLDER"), ("qwen", "qwen:FOLDER"),
     ("", "small"), ("small?fps=2", "small"), (f"{ENGINE}#", "URL#MODEL"), (ENGINE, "URL#MODEL")],
)  # fmt: skip
def test_an_unknown_model_lists_what_there_is(spec, wanted):
    with pytest.raises(ValueError, match=wanted):
        open_model(spec)


def test_options_follow_the_model():
    model = open_model(f"{ENGINE}#m?order=video_first&token_ids=[5,6,7,8,9]&fps=4&most=16")
    assert model.config.order == "video_first" and model.config.token_ids == (5, 6, 7, 8, 9)
    assert (model.info.sampling.fps, model.info.sampling.most) == (4, 16)
    assert model.info.sampling.side == SAMPLING.side
    assert open_model(f"{ENGINE}#m?fps=4", fps=8).info.sampling.fps == 8
    assert model.info.preprocess_sha != open_model(f"{ENGINE}#m").info.preprocess_sha


@pytest.mark.parametrize(
    ("options", "error"),
    [("order=last", ValueError), ("fps=0", ValueError), ("image=gif", ValueError),
     ("speed=3", TypeError), ("order", ValueError), ("token_ids=[1,1,2,3,4]", ValueError)],
)  # fmt: skip
def test_a_wrong_option_is_refused(options, error):
    with pytest.raises(error):
        open_model(f"{ENGINE}#m?{options}")


@pytest.mark.parametrize(
    ("spec", "lacks", "module", "extra"),
    [("qwen:nowhere", "transformers", "qwen", "vlm"),
     (f"{ENGINE}#m", "httpx", "engine_http", "serve"),
     ("small", "torch", "small", "serve")],
)  # fmt: skip
def test_a_missing_extra_is_named(monkeypatch, spec, lacks, module, extra):
    monkeypatch.setitem(sys.modules, lacks, None)
    for name in (module, "openai", "small_net"):
        monkeypatch.delitem(sys.modules, f"reward_vlm.backends.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'incognita\[{extra}\]'"):
        open_model(spec)

"""A language model writes stage dictionaries: a real HTTP server answers what a test told it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from evovla.stage_check import StageError
from evovla.stage_text import from_steps
from evovla.stage_writer import Assignment, write_stages
from evovla.stages import Step, load, to_json
from incognita.stage_llm import KEY_ENV, Chat, ChatConfig
from incognita.stages_cli import app
from reward_vlm.backends.engine_http import Patience
from reward_vlm.model import BadOutput, EngineUnavailable

GOOD = to_json(from_steps(
    "pick", "pick the red cube up", [Step("reach", "red cube"), Step("lift", "red cube")]
))  # fmt: skip
QUICK = ChatConfig(patience=Patience(budget_s=5.0, tries=2, wait_s=0.01))
TOLD = Assignment("pick", "pick the red cube up", ("red cube",), tries=3)


class Endpoint(ThreadingHTTPServer):
    """Answers the n-th request with the n-th reply, then with the last one again."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.asked = [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked, replies = self.server.asked, self.server.replies
        asked.append((self.path, self.headers.get("Authorization"), body))
        reply = replies[min(len(asked), len(replies)) - 1]
        status = reply if isinstance(reply, int) else 200
        if isinstance(reply, str):
            reply = {"choices": [{"message": {"content": reply}, "finish_reason": "stop"}]}
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def with_text(stage, field, text):
    content = json.loads(json.dumps(GOOD))
    content["triplets"][stage][field] = text
    return json.dumps(content)


def test_problems_go_back_until_the_dictionary_passes(endpoint):
    endpoint.replies = [
        "I cannot see the task.",
        with_text("stage_1", "negative", "TODO write this"),
        f"Here it is:\n```json\n{json.dumps(GOOD)}\n```",
    ]
    chat = Chat(endpoint.url, "a-model", QUICK)
    found = write_stages(chat, TOLD)
    chat.close()
    assert to_json(found) == GOOD
    (path, _, first), (_, _, second), (_, _, third) = endpoint.asked
    assert path == "/v1/chat/completions" and first["model"] == "a-model"
    assert "red cube" in first["messages"][1]["content"]
    assert "answer: must be one JSON object" in second["messages"][-1]["content"]
    assert "stage_1.negative: is unfinished, has 'TODO'" in third["messages"][-1]["content"]
    assert [m["role"] for m in third["messages"]] == [
        "system", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (with_text("stage_0", "positive", "the shiny thing is between them"), "stage_0.positive"),
        (with_text("stage_1", "target", "blue cube"), "stage_1.target: must be one of red cube"),
        (with_text("stage_1", "primitive", "fly"), "stage_1.primitive must be one of"),
        (json.dumps(GOOD | {"task_name": "other"}), "task_name: must be 'pick', got 'other'"),
        (json.dumps(GOOD | {"triplets": {}}), "triplets: must be an object of stages"),
        ("{" * 2000, "answer: must be one JSON object"),
    ],
)
def test_what_stays_bad_is_refused_after_a_bounded_number_of_answers(endpoint, answer, problem):
    endpoint.replies = [answer]
    with pytest.raises(StageError, match="pick, after 3 answers: ") as caught:
        write_stages(Chat(endpoint.url, "m", QUICK), TOLD)
    assert len(endpoint.asked) == 3
    assert any(p.startswith(problem) for p in caught.value.problems)


def test_the_number_of_stages_is_held_to(endpoint):
    endpoint.replies = [json.dumps(GOOD)]
    told = Assignment("pick", "pick it", ("red cube",), stages=(3, 9), tries=1)
    with pytest.raises(StageError, match="num_stages: must be 3 to 9, got 2"):
        write_stages(Chat(endpoint.url, "m", QUICK), told)


def test_pictures_of_a_demonstration_travel_with_the_question(endpoint):
    endpoint.replies = [json.dumps(GOOD)]
    told = Assignment("pick", "pick it", ("red cube",), pictures=(b"\x89PNG1", b"\xff\xd8jpeg"))
    write_stages(Chat(endpoint.url, "m", QUICK), told)
    text, png, jpeg = endpoint.asked[0][2]["messages"][1]["content"]
    assert text["type"] == "text"
    assert png["image_url"]["url"].startswith("data:image/png;base64,")
    assert jpeg["image_url"]["url"] == "data:image/jpeg;base64,/9hqcGVn"


def test_an_endpoint_that_stumbles_is_asked_again_and_a_broken_one_ends_it(endpoint):
    endpoint.replies = [503, json.dumps(GOOD)]
    assert write_stages(Chat(endpoint.url, "m", QUICK), TOLD).num_stages == 2
    endpoint.replies, endpoint.asked[:] = [503], []
    with pytest.raises(EngineUnavailable, match="status 503"):
        write_stages(Chat(endpoint.url, "m", QUICK), TOLD)
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"error": "no"}, r"has no choices\[0\].message.content"),
        ({"choices": [{"message": {"content": None}}]}, "must be a text, got None"),
        ({"choices": [{"message": {"content": "{"}, "finish_reason": "length"}]}, "was cut at"),
    ],
)
def test_an_answer_without_a_whole_text_is_an_error(endpoint, reply, message):
    endpoint.replies = [reply]
    with pytest.raises(BadOutput, match=message):
        Chat(endpoint.url, "m", QUICK)([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1beta/openai", "/v1beta/openai/chat/completions"),
    ],
)
def test_the_address_may_be_of_any_provider_and_the_key_is_sent(endpoint, monkeypatch, base, path):
    monkeypatch.setenv(KEY_ENV, "secret-1")
    endpoint.replies = ["yes"]
    assert Chat(endpoint.url + base, "m", QUICK)([{"role": "user", "content": "well?"}]) == "yes"
    assert endpoint.asked[0][:2] == (path, "Bearer secret-1")


def test_the_commands_write_a_dictionary_and_find_its_problems(endpoint, tmp_path):
    endpoint.replies = [json.dumps(GOOD)]
    file = tmp_path / "pick.json"
    run = CliRunner()
    wrote = run.invoke(app, [
        "write", "pick", "pick the red cube up", "--object", "red cube", "--url", endpoint.url,
        "--model", "m", "--out", str(file),
    ])  # fmt: skip
    assert wrote.exit_code == 0, wrote.output
    assert to_json(load(file)) == GOOD
    assert run.invoke(app, ["check", str(file)]).exit_code == 0
    file.write_text(with_text("stage_0", "negative", "far from the TODO"))
    checked = run.invoke(app, ["check", str(file)])
    assert checked.exit_code == 1
    assert "stage_0.negative: is unfinished" in " ".join(checked.output.split())


def test_an_assignment_says_what_it_lacks():
    with pytest.raises(ValueError, match="objects must not be empty"):
        Assignment("pick", "pick it", ())
    with pytest.raises(ValueError, match="tries >= 1 wanted"):
        Assignment("pick", "pick it", ("cube",), tries=0)

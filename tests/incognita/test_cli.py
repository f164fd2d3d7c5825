"""The command line as a user meets it: help, one-line errors, exit codes."""

import json
import os
import subprocess
import sys

import pytest

from incognita import cli
from incognita.shipped import names


def call(*args, env=None, cwd=None):
    line = [sys.executable, "-m", "incognita.cli", *map(str, args)]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | (env or {})
    return subprocess.run(
        line, capture_output=True, text=True, timeout=120, env=environment, cwd=cwd
    )


def inside(monkeypatch, *args):
    """Exit code of ``main`` in this process."""
    monkeypatch.setattr(sys, "argv", ["incognita", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


def test_help_lists_the_commands_and_the_exit_codes():
    result = call("--help")
    assert result.returncode == 0 and not result.stderr
    for name in ("demo", "train", "eval", "export", "tasks", "recipes", "policies", "episodes"):
        assert name in result.stdout
    assert "130 stopped by Ctrl-C" in result.stdout


@pytest.mark.parametrize("command", ["demo", "train", "eval", "export", "episodes", "bench"])
def test_each_command_has_help(command, monkeypatch, capsys):
    assert inside(monkeypatch, command, "--help") == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["demo", "train", "eval", "export"])
def test_help_of_the_main_commands_holds_an_example(command, monkeypatch, capsys):
    inside(monkeypatch, command, "--help")
    assert f"Example: incognita {command}" in capsys.readouterr().out.replace("`", "")


def test_tasks_and_recipes_are_listed(monkeypatch, capsys):
    for command in ("tasks", "recipes"):
        assert inside(monkeypatch, command) == 0
        assert "agv-warehouse" in capsys.readouterr().out


def test_policies_are_checked_and_written_as_json(tmp_path, monkeypatch, capsys):
    file = tmp_path / "new" / "policies.json"
    assert inside(monkeypatch, "policies", "--json", file) == 0
    listed = json.loads(file.read_text())
    assert sorted(listed) == names() and listed == json.loads(capsys.readouterr().out)
    assert all(entry["bytes"] < 5e6 for entry in listed.values())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["nothing"], "No such command"),
        (["train"], "Missing argument"),
        (["train", "no-such-recipe"], "must be one of"),
        (["train", "agv-barn", "--variant", "no-such"], "got 'no-such'"),
        (["train", "agv-barn", "no_such=1"], "no_such is unknown"),
        (["train", "agv-barn", "steps"], "must be key=value"),
        (["eval", "no-such-policy"], "policy must be a policy folder or one of"),
        (["eval", "agv-warehouse", "--episodes", "0"], "--episodes"),
        (["export", "no-such-folder", "x"], "policy folder is wanted"),
        (["demo", "--map", "no-such.yaml"], "no-such.yaml"),
        (["demo", "--seed", "many"], "--seed"),
    ],
)  # fmt: skip
def test_bad_input_is_exit_code_2_and_one_plain_message(line, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert inside(monkeypatch, *line) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words in said and "Traceback" not in said
    assert not any(tmp_path.glob("runs/*"))


def test_an_error_is_one_line_without_debug_and_a_traceback_with_it(tmp_path):
    plain = call("eval", "no-such-policy", cwd=tmp_path)
    assert plain.returncode == 2
    assert plain.stderr.count("\n") == 1 and plain.stderr.startswith("error: FileNotFoundError:")
    loud = call("eval", "no-such-policy", "--debug", cwd=tmp_path)
    assert loud.returncode == 1 and "Traceback" in loud.stderr
    assert "FileNotFoundError" in loud.stderr


def test_a_damaged_policy_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "manifest.json").write_text("{}")
    assert inside(monkeypatch, "export", tmp_path / "policy", tmp_path / "copy") == 2
    assert "PolicyFileError" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


@pytest.mark.skipif(not names(), reason="no policy is shipped")
def test_export_copies_a_whole_policy_once(tmp_path, monkeypatch, capsys):
    from incognita.shipped import folder_of

    source, target = folder_of(names()[0]), tmp_path / "copy"
    assert inside(monkeypatch, "export", source, target) == 0
    assert json.loads(capsys.readouterr().out)["files"] == sorted(p.name for p in source.iterdir())
    assert inside(monkeypatch, "export", source, target) == 2
    assert "must not exist yet" in capsys.readouterr().err


def test_work_that_fails_is_exit_code_1(monkeypatch, capsys, tmp_path):
    def demo(*_, **__):
        raise RuntimeError("no episode was recorded")

    monkeypatch.setattr("incognita.demo.run_demo", demo)
    assert inside(monkeypatch, "demo", "--out", tmp_path) == 1
    assert "RuntimeError: no episode was recorded" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("reached", "code"), [(True, 0), (False, 1)])
def test_demo_fails_where_no_goal_was_reached(reached, code, monkeypatch, tmp_path):
    monkeypatch.setattr("incognita.demo.run_demo", lambda *_, **__: {"reached": reached})
    file = tmp_path / "demo.json"
    assert inside(monkeypatch, "demo", "--out", tmp_path, "--json", file) == code
    assert json.loads(file.read_text()) == {"reached": reached}


def test_ctrl_c_is_exit_code_130(monkeypatch, capsys, tmp_path):
    def demo(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("incognita.demo.run_demo", demo)
    assert inside(monkeypatch, "demo", "--out", tmp_path) == 130
    assert "Traceback" not in capsys.readouterr().err

"""``incognita stages``: check a stage dictionary, or have a language model write one.

Exit codes: 0 well, 1 problems found or no good answer, 2 bad usage or input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from evovla.stage_check import StageError
from evovla.stages import load, save

app = typer.Typer(help="Check and write stage dictionaries.", no_args_is_help=True)


@app.command(epilog="Example: `incognita stages check stack.json`")
def check(
    file: Annotated[Path, typer.Argument(help="Stage dictionary, JSON.")],
) -> None:
    """Hold a dictionary against the quality filters; name stage and field of every problem."""
    try:
        found = load(file)
    except StageError as error:
        _complain(error)
    Console().print(f"{escape(str(file))}: {found.num_stages} stages, no problems")


@app.command(epilog='Example: `incognita stages write pick "pick the red cube up" --object "red cube" --url http://127.0.0.1:8000 --model NAME`')  # noqa: E501  # fmt: skip
def write(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    description: Annotated[str, typer.Argument(help="What is to be done, in a sentence.")],
    object: Annotated[list[str], typer.Option(help="Name of an object; may be repeated.")],
    url: Annotated[
        str, typer.Option(envvar="INCOGNITA_LLM_URL", help="Endpoint with OpenAI's chat API.")
    ],
    model: Annotated[str, typer.Option(help="As the endpoint names it.")],
    out: Annotated[Path | None, typer.Option(help="Default TASK.json.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="JPEG or PNG of a demonstration, in order.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Most answers that are asked for.")] = 4,
) -> None:
    """Have a language model write a dictionary; what fails a filter goes back to it.

    The key comes from INCOGNITA_LLM_KEY.
    """
    from evovla.stage_writer import Assignment, write_stages

    try:
        from .stage_llm import Chat
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: pip install 'incognita[client]'") from None
    pictures = tuple(path.read_bytes() for path in image or [])
    told = Assignment(task, description, tuple(object), tries=tries, pictures=pictures)
    chat = Chat(url, model)
    try:
        found = write_stages(chat, told)
    except StageError as error:
        _complain(error)
    finally:
        chat.close()
    file = out or Path(f"{task}.json")
    save(file, found)
    Console().print(f"{escape(str(file))}: {found.num_stages} stages")


def _complain(error: StageError) -> NoReturn:
    Console(stderr=True).print(escape(str(error)))
    raise typer.Exit(1)

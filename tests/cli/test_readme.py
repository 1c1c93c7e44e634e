"""The README's commands exist, parse, and set settings that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from curate.cli.app import SECTIONS, execute
from curate.cli.app import curate as program
from curate.schema import resources
from curate.settings import build, compose, values

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("curate ")]


def parse(line: str) -> click.Context:
    name, *arguments = shlex.split(line)[1:]
    command = program.get_command(click.Context(program), name)
    assert command is not None
    return command.make_context(name, arguments)


def test_the_readme_shows_commands() -> None:
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_readme_parses(line: str) -> None:
    context = parse(line)
    values(context.params.get("overrides", ()) or ())
    if context.info_name in ("run", "check"):
        from curate.recipe import RecipeSettings

        build(RecipeSettings, compose(context.params["recipe"], context.params["overrides"]))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`curate ([a-z]+)", TEXT))))
def test_a_command_named_in_the_text_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([name, "--help"]) == 0


def test_keys_named_in_the_tables_exist() -> None:
    from curate.recipe import RecipeSettings

    keys = re.findall(r"`((?:input|plan|fetch|pack|engine|prefilter)\.[a-z_.]+)(?:=[^`]*)?`", TEXT)
    assert len(keys) > 15
    for key in keys:
        model: object = RecipeSettings
        for step in key.split("."):
            if model is dict:  # input.columns.MEANING
                break
            field = model.model_fields[step]  # type: ignore[attr-defined]
            model = dict if "dict" in str(field.annotation) else field.annotation


@pytest.mark.parametrize(
    "reason", re.findall(r"^\| [^|]+ \| (`[a-z_`, ]+`)", TEXT[TEXT.index("error_message` | `reason`") :], re.MULTILINE)
)
def test_reasons_in_the_tables_exist(reason: str) -> None:
    from curate.errors import REASONS

    assert set(re.findall(r"`([a-z_]+)`", reason)) <= set(REASONS)


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists() or target == ".github/report.png", f"{name}: {target}"


def test_the_readme_names_every_policy() -> None:
    for path in (resources("conf") / "policy").glob("*.sql"):
        assert f"`{path.stem}`" in TEXT or path.stem == "demo"


def test_words_of_the_plan_stay_out_of_what_people_read() -> None:
    texts = [TEXT, (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / "CHANGELOG.md").read_text()]
    texts += [str(command.help) for commands in SECTIONS.values() for command in commands]
    assert not [text for text in texts if re.search(r"\b(law|house|fate)\b", text.replace("test_house", ""), re.IGNORECASE)]

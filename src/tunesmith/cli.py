"""The verbs of the command `tunesmith`. Each imports what it needs when it is called, so that help answers at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from tunesmith import __version__
from tunesmith.base.errors import TunesmithError
from tunesmith.base.telling import telling

if TYPE_CHECKING:
    from tunesmith.recipe import LoadedRecipe

OUT_OF_OUR_HANDS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Verbs(TyperGroup):
    """Where every verb's errors come out: one message on stderr and an exit code, no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TunesmithError as error:
            _fail(str(error), error, error.exit_code)
        except OSError as error:
            if error.errno not in OUT_OF_OUR_HANDS:
                raise
            _fail(f"{error.filename or 'the disk'}: {error.strerror}. Make room or mend the permissions.", error, 1)
        except KeyboardInterrupt as error:
            _fail("stopped. What was finished is kept: the same command goes on from there.", error, 130)


def _fail(message: str, error: BaseException, code: int) -> NoReturn:
    if os.environ.get("TUNESMITH_DEBUG"):
        raise error
    with telling(error, message) as told:
        if told:
            typer.echo(f"tunesmith: {told}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=Verbs,
    name="tunesmith",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: tunesmith run quickstart",
)

RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A shipped recipe (quickstart, full, lora, cluster), a YAML file, or a run."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name in runs/.")]
NewestRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run's folder, or its name in runs/; the newest if left out.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="The run's folder.", show_default="runs/ and the recipe's name"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key, as in train.epochs=1; may be repeated."),
]
ROAD, LOOK, USE = "The road", "Looking closer", "Using the model"


@app.callback(invoke_without_command=True)
def tunesmith(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """From raw instruction data and a base model to an assistant, and the proof that it is better."""
    if version:
        typer.echo(f"tunesmith {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=ROAD)
def run(recipe: RecipeName, output: Output = None, overrides: Overrides = None) -> None:
    """Everything a recipe says, to the report, going on where it stopped."""
    _go(recipe, output, overrides, "report")


@app.command(rich_help_panel=ROAD)
def prepare(
    recipe: RecipeName,
    output: Output = None,
    overrides: Overrides = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write the rows as Parquet and JSONL with a card, for other programs."),
    ] = None,
) -> None:
    """Only the data: read, split, mix, supervise, pack, and say what became of every row."""
    _go(recipe, output, overrides, "prepare", **({"export": export.expanduser()} if export else {}))


@app.command(rich_help_panel=ROAD)
def train(recipe: RecipeName, output: Output = None, overrides: Overrides = None) -> None:
    """The data and the training, going on from the newest checkpoint."""
    _go(recipe, output, overrides, "train")


@app.command(rich_help_panel=ROAD)
def evaluate(
    recipe: RecipeName,
    output: Output = None,
    overrides: Overrides = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Train once for each task cluster, without it, and measure on it.")
    ] = False,
) -> None:
    """Up to the comparison of base and tuned model, without the report."""
    if not leave_one_out:
        _go(recipe, output, overrides, "evaluate")
    from tunesmith.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    folder = _folder(loaded, output)
    import tunesmith.pipeline as pipeline
    from tunesmith.pipeline.sweeping import leave_one_out as hold_out_each

    pipeline.run(loaded, folder, until="prepare")
    raise typer.Exit(hold_out_each(loaded, recipe, overrides or (), folder))


@app.command(rich_help_panel=ROAD)
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs' folders or names; the newest if left out.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="One page with the runs side by side.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page of a comparison.")] = Path(
        "comparison.html"
    ),
) -> None:
    """Write runs' reports again from their files, or compare the runs on one page."""
    from tunesmith.base.runs import find_run

    folders = [find_run(run) for run in runs] if runs else [find_run()]
    if compare:
        from tunesmith.report.compare import write_comparison_page
        from tunesmith.report.terminal import print_runs

        path = write_comparison_page(folders, output.expanduser(), f"{len(folders)} runs side by side")
        print_runs(folders)
        typer.echo(path)
        return
    import tunesmith.pipeline as pipeline

    for folder in folders:
        typer.echo(pipeline.report(folder))


@app.command(rich_help_panel=ROAD)
def sweep(
    recipe: RecipeName,
    vary: Annotated[
        list[str],
        typer.Option("--vary", "-v", metavar="KEY=VALUE,...", help="A key and its values; may be repeated: a grid."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where the runs go.", show_default="runs/ and the recipe's name-sweep"
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """A recipe with every combination of some values, compared: methods, rates, data. Goes on where it stopped."""
    from tunesmith.base.runs import RUNS
    from tunesmith.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from tunesmith.pipeline.sweeping import grid
    from tunesmith.pipeline.sweeping import sweep as run_all

    into = output.expanduser() if output else RUNS / f"{loaded.name}-sweep"
    raise typer.Exit(run_all(recipe, overrides or (), grid(vary), into, f"{loaded.name}: {'; '.join(vary)}"))


@app.command(rich_help_panel=LOOK)
def inspect(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or a run's folder or name.")],
    row: Annotated[str | None, typer.Option(help="The row to show, by its id (SOURCE:LINE).")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show token ids as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of colours.")] = False,
    overrides: Overrides = None,
) -> None:
    """The exact tokens of rows and which of them are supervised."""
    from tunesmith.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    trained = None if overrides else loaded.run  # other settings than the run's make other tokens
    import tunesmith.pipeline as pipeline

    raise typer.Exit(pipeline.inspect(loaded, trained, row=row, ids=ids, as_json=as_json))


@app.command(rich_help_panel=LOOK)
def plan(
    recipe: RecipeName,
    output: Output = None,
    overrides: Overrides = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="Plan for this GPU, as H100; else this one.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that will train together.")] = 1,
    no_data: Annotated[bool, typer.Option("--no-data", help="Read no data: rows are taken to be full.")] = False,
    no_trial: Annotated[bool, typer.Option("--no-trial", help="Try no steps: the base's weights aren't read.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Memory, steps and time of a training, and what speaks against it, before any of it is spent."""
    from tunesmith.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    folder = _folder(loaded, output)
    from tunesmith.pipeline.planning import Asked
    from tunesmith.pipeline.planning import plan as plan_run

    asked = Asked(gpu, processes, data=not no_data, trial=not no_trial, as_json=as_json)
    raise typer.Exit(plan_run(loaded, folder, asked))


@app.command(rich_help_panel=LOOK)
def why(
    run: RunName,
    row: Annotated[str | None, typer.Argument(metavar="[ROW]", help="The row's id, SOURCE:LINE.")] = None,
    reason: Annotated[str | None, typer.Option(help="Instead of a row: examples of this reason for dropping.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many examples.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
) -> None:
    """What became of a row, from its line to the steps that train on it; rows dropped for a reason; or all reasons."""
    from tunesmith.base.errors import UserError
    from tunesmith.base.runs import find_run

    if row is not None and reason is not None:
        raise UserError("name a row (tunesmith why RUN alpaca:17), or a reason (--reason near_duplicate): one of them.")
    folder = find_run(run)
    from tunesmith.pipeline.explaining import explain

    raise typer.Exit(explain(folder, row, reason, sample, as_json))


@app.command(rich_help_panel=LOOK)
def diagnose(
    run: RunName,
    log: Annotated[Path, typer.Argument(metavar="LOG", help="What was asked and answered in production, as JSONL.")],
    failed: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that says which rows failed.")
    ] = None,
) -> None:
    """Why a model does badly in production: its log against what it was trained on."""
    from tunesmith.base.runs import find_run

    folder = find_run(run)
    from tunesmith.pipeline.diagnosing import diagnose_run

    raise typer.Exit(diagnose_run(folder, log.expanduser(), failed=failed))


@app.command(rich_help_panel=USE)
def chat(
    run: NewestRun = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Answer this once and exit.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Talk to the base model, for comparison.")] = False,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the most likely token.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
) -> None:
    """Talk to the tuned model. Also over pipes: every line is a turn."""
    from tunesmith.base.runs import find_run
    from tunesmith.recipe import load_recipe

    folder = find_run(run)
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    from tunesmith.serve.chat import open_chat, talk

    conversation = open_chat(
        None if base else folder / "model",
        recipe.base,
        trust_remote_code=recipe.trust_remote_code,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=recipe.seed,
    )
    talk(conversation, prompt)


@app.command(rich_help_panel=USE)
def export(
    run: RunName,
    merged: Annotated[Path, typer.Option("--merged", metavar="DIR", help="The folder to write; new or empty.")],
) -> None:
    """Write the tuned model as one plain model folder, its adapter merged into the weights."""
    from tunesmith.base.runs import find_run
    from tunesmith.recipe import load_recipe
    from tunesmith.serve.export import export_merged

    folder = find_run(run)
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    model, into = folder / "model", merged.expanduser()
    typer.echo(export_merged(model, into, base=recipe.base, trust_remote_code=recipe.trust_remote_code))


@app.command(rich_help_panel=LOOK)
def recipe(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe; all are listed if left out.")] = None,
) -> None:
    """Print a shipped recipe, to start one's own from: tunesmith recipe lora > mine.yaml"""
    from tunesmith.recipe import load_recipe, shipped_recipes

    if name:
        typer.echo(load_recipe(name).text, nl=False)
    for shipped in () if name else shipped_recipes():
        typer.echo(shipped)


@app.command(rich_help_panel=LOOK)
def templates(
    name: Annotated[str | None, typer.Argument(help="Shipped prompt templates; all are listed if left out.")] = None,
) -> None:
    """Print shipped prompt templates, to start one's own from: tunesmith templates choices > mine.yaml"""
    from tunesmith.recipe.phrasings import shipped_templates, template_path

    if name:
        typer.echo(template_path(name).read_text(encoding="utf-8"), nl=False)
    for shipped, path in () if name else shipped_templates().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        typer.echo(f"{shipped:<16}{first.lstrip('# ')}")


@app.command(rich_help_panel=LOOK)
def schema() -> None:
    """The recipe's JSON schema, for editors and for reading."""
    import json

    from tunesmith.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False))


def _go(
    recipe: str,
    output: Path | None,
    overrides: list[str] | None,
    until: Literal["prepare", "train", "evaluate", "report"],
    **options: Path,
) -> None:
    from tunesmith.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    folder = _folder(loaded, output)
    import tunesmith.pipeline as pipeline  # slow to import, so only once the recipe is known to be right

    raise typer.Exit(pipeline.run(loaded, folder, until=until, **options))


def _folder(loaded: LoadedRecipe, output: Path | None) -> Path:
    from tunesmith.base.runs import RUNS

    return output.expanduser() if output else loaded.run or RUNS / loaded.name


def main() -> None:
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        # Threads that wait for each other spin. Where other programs want the cores too, generation, which is many
        # small products, then took several times its time (docs/evaluation.md). It is read when torch is loaded.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    app()

"""Finding a recipe by name, path or run, overriding values, and reporting all its faults together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tunesmith.base.errors import RecipeError, UserError
from tunesmith.base.runs import RUNS, is_run
from tunesmith.recipe.document import Document, Fault, Key, parse_value, read_document, to_yaml
from tunesmith.recipe.faults import faults_of
from tunesmith.recipe.models import Recipe

SHIPPED = Path(__file__).parents[1] / "recipes"
LARGEST_RECIPE = 1_000_000  # bytes; more is a data file by mistake


MODELS: tuple[Key, ...] = (("base",), ("train", "distill", "teacher"))
"""What names a model: a path only if there is such a folder."""


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A checked recipe: `text` as it was written, `path` where, and `name`, which its run gets by default."""

    recipe: Recipe
    path: Path
    text: str
    name: str

    @property
    def run(self) -> Path | None:
        """The folder of the run whose own recipe this is, or None."""
        return _run_of(self.path)

    def complete(self) -> str:
        """The recipe as YAML with every value written out, overrides and defaults too; reads back as the same."""
        return to_yaml(self.recipe.model_dump(mode="json"))


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a shipped recipe, a YAML file, or the recipe of a run (its folder, or its name in `runs/`), with `key=value`
    overrides. A shipped name comes first, so that `tunesmith run quickstart` means the same in any folder.

    Relative paths in a file are relative to its folder; in shipped recipes and overrides, to the current one.
    Raises RecipeError listing all faults, UserError when there is no such recipe.
    """
    path, name = _find(name_or_path)
    text = _read(path)
    document = read_document(text)
    if document.values is None and not document.faults:
        document.values = {}
    readable = document.values is not None
    for override in overrides if readable else ():
        document = _overridden(document, override)
    faults = faults_of(Recipe, document) if readable else document.faults
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise RecipeError(f"recipe {path} has {count}:\n{lines}\n`tunesmith schema` describes every key.")
    folder = Path.cwd() if path.parent == SHIPPED else path.parent.absolute()
    recipe = Recipe.model_validate(_with_paths(document, folder).values)
    return LoadedRecipe(recipe, path, text, name)


def _find(name_or_path: str) -> tuple[Path, str]:
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path], name_or_path
    path = Path(name_or_path).expanduser()
    if path.is_file():
        run = _run_of(path)
        return path, run.absolute().name if run else path.stem
    for folder in (path, RUNS / path):
        if (folder / "recipe.yaml").is_file():
            return folder / "recipe.yaml", folder.absolute().name
    if path.is_dir():
        raise UserError(f"{path} is a folder without a recipe.yaml: give a recipe's file, or the folder of a run.")
    near = get_close_matches(name_or_path, shipped, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"Give a YAML file or a shipped recipe: {', '.join(shipped)}."
    raise UserError(
        f"there is no recipe {name_or_path!r}: it is neither a file, nor a shipped recipe, nor a run in runs/. {hint}"
    )


def _run_of(recipe_file: Path) -> Path | None:
    folder = recipe_file.parent
    return folder if recipe_file.name == "recipe.yaml" and is_run(folder) else None


def _read(path: Path) -> str:
    if path.stat().st_size > LARGEST_RECIPE:
        raise UserError(
            f"{path} has {path.stat().st_size / 1e6:,.1f} MB, too much for a recipe. Data files are named in a recipe, "
            "under data.sources; `tunesmith recipe lora` prints one to start from."
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error


def _overridden(document: Document, override: str) -> Document:
    """The document with one `key=value`, or with the fault of it."""
    place = f"--set {override}"
    name, equals, text = override.partition("=")
    key: Key = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
    try:
        if not equals or "" in key:
            raise ValueError("is not of the form key=value, as in train.epochs=1")
        return document.with_value(key, parse_value(text), place)
    except ValueError as error:
        document.faults.append(Fault(place, (), str(error)))
        return document


def _with_paths(document: Document, folder: Path) -> Document:
    """The document with its relative paths made absolute; a base or a template is a path only if it exists as one."""
    lists: list[tuple[Key, Key]] = [
        (("data", "sources"), ("path",)),
        (("data", "sources"), ("templates", "file")),
        (("data", "dedup", "reference"), ()),
        (("data", "decontaminate", "against"), ("path",)),
        (("evaluate", "suites"), ("path",)),
        (("evaluate", "suites"), ("task",)),
    ]
    keys = [(*of, index, *end) for of, end in lists for index in range(len(document.get(of) or ()))]
    keys += [
        ("data", "replay", "path"),
        ("evaluate", "forgetting", "path"),
        ("evaluate", "bertscore", "model"),
        ("data", "dedup", "embedding"),
        *MODELS,
        ("chat_template",),
    ]
    for key in keys:
        value, place = document.get(key), document.place(key)
        if not isinstance(value, str) or value.startswith("hub:"):
            continue
        path = (Path.cwd() if place.startswith("--set") else folder) / Path(value).expanduser()
        named = (key in MODELS and (value == "pocket" or not path.is_dir())) or (
            key[-1] in ("chat_template", "task", "file") and not path.is_file()
        )
        if not named:
            document = document.with_value(key, str(path), place)
    return document

"""The shape of the source: imports point downward only, and the README's tree names what is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/tunesmith"
# From top to bottom. Members of one level do not import each other.
LEVELS = (
    {"__main__"},
    {"cli"},
    {"pipeline"},
    {"recipe"},
    {"report", "serve"},
    {"train", "evaluate"},
    {"model"},
    {"tokens"},
    {"data"},
    {"pocket"},
    {"base"},
)
DEPTH = {part: depth for depth, level in enumerate(LEVELS) for part in level}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Full names of the modules of Tunesmith that a file imports, inside functions and for type checks too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tunesmith")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out from `tunesmith`"
            if node.module == "tunesmith":
                yield from (f"tunesmith.{alias.name}" for alias in node.names if alias.name != "__version__")
            elif node.module and node.module.startswith("tunesmith."):
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downward(path):
    part = part_of(path)
    assert part in DEPTH, f"{part} has no level: give it one here and in the README's tree"
    for name in imported(path):
        other = name.split(".")[1]
        assert other == part or DEPTH[other] > DEPTH[part], f"{path} imports {name}, which is not below it"


def test_folders_are_two_levels_deep_and_none_is_called_utils():
    for path in SOURCE.rglob("*"):
        inner = path.relative_to(SOURCE).parts
        assert len(inner) <= 3
        assert not any(name.removesuffix(".py") in ("utils", "helpers", "common") for name in inner)


def tree() -> dict[str, str]:
    """The README's tree: what stands in it, by path below `src/tunesmith/`, with its caption."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.strip().split(" ")[0] == "src/tunesmith/")
    indent = len(lines[start]) - len(lines[start].lstrip())
    entries: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in lines[start + 1 :]:
        entry = re.match(r"( +)([\w.*/-]+)(?: +(.*))?$", line)
        if not entry or len(entry[1]) <= indent:
            break
        depth, name = len(entry[1]), entry[2]
        above = [(other, folder) for other, folder in above if other < depth]
        entries["".join(folder for _, folder in above) + name] = (entry[3] or "").strip()
        if name.endswith("/"):
            above.append((depth, name))
    return entries


def test_the_readme_names_each_folder_and_file_of_the_package():
    entries = tree()
    there = {f"{path.name}/" for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    there |= {path.name for path in SOURCE.glob("*.py") if not path.name.startswith("__")}
    assert {name for name in entries if "/" not in name.rstrip("/")} == there


def test_what_the_readme_names_exists_and_has_a_caption():
    for name, caption in tree().items():
        assert list(SOURCE.glob(name.rstrip("/"))), f"the README names {name}, which does not exist"
        assert caption, f"the README's tree says nothing of {name}"

from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import RecipeError, UserError
from tunesmith.data.sources.formats import MAP_KEYS, SHAPES
from tunesmith.evaluate.metrics import METRICS
from tunesmith.pipeline.training import settings_of
from tunesmith.recipe import load_recipe, shipped_recipes
from tunesmith.recipe.data import Format
from tunesmith.recipe.document import parse_value, read_document, to_yaml
from tunesmith.recipe.evaluation import Metric
from tunesmith.recipe.models import Recipe
from tunesmith.recipe.section import Column

SMALLEST = "data: {sources: [{pocket: 10}]}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "mine.yaml") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write


def faults(name: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        load_recipe(name, overrides)
    return [line.strip() for line in str(error.value).splitlines()[1:-1]]


@pytest.mark.parametrize("name", ["quickstart", "full", "lora", "cluster"])
def test_shipped_recipes_load(name):
    loaded = load_recipe(name)
    assert loaded.name == name
    assert loaded.text == shipped_recipes()[name].read_text(encoding="utf-8")
    assert (loaded.recipe.train.method == "lora") == (name == "lora")


def test_defaults(write):
    recipe = load_recipe(write(SMALLEST)).recipe
    assert (recipe.base, recipe.seed, recipe.trust_remote_code) == ("pocket", 0, False)
    assert recipe.data.sources[0].name == "pocket"
    assert recipe.train.tokens_per_batch == recipe.train.max_length == 2048
    assert recipe.train.learning_rate == 2e-5
    assert load_recipe("mine.yaml", ["train.method=lora"]).recipe.train.learning_rate == 2e-4
    odd = load_recipe("mine.yaml", ["train.max_length=3000"]).recipe.train
    assert (odd.tokens_per_batch, odd.tokens_per_step) == (3000, 33000)


def test_recipes_are_frozen(write):
    recipe = load_recipe(write(SMALLEST)).recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/alpaca.json", "alpaca"),
        ("gsm8k.jsonl.gz", "gsm8k"),
        ("hub:openai/gsm8k:main/*.parquet", "gsm8k"),
        ("shards/*.parquet", "shards"),
        ("*.json", "data"),
    ],
)
def test_a_source_is_named_after_its_file(write, path, name):
    # An absolute path would name the folder above, so the model is asked directly.
    assert Recipe.model_validate({"data": {"sources": ({"path": path},)}}).data.sources[0].name == name


def test_all_faults_are_reported_together_with_their_lines(write):
    name = write(
        """\
base: 3
sede: 1
learning_rate: 0.1
data:
  sources:
    - {path: a.json, pocket: 3, frmat: text}
    - path: b.json
      map: {respnse: answer}
    - 7
  mix: {strategy: temprature}
trian:
  epochs: -1
  lora: {targets: all}
  max_length: 4096
evaluate:
  forgetting: true
"""
    )
    found = faults(name)
    expected = [
        ("line 1: base: 3", "string"),
        ("line 2: sede: unknown key", "did you mean `seed`?"),
        ("line 3: learning_rate: unknown key", "did you mean `train.learning_rate`?"),
        ("line 6: data.sources.0.frmat: unknown key", "did you mean `format`?"),
        ("line 6: data.sources.0: needs exactly one of `path` or `pocket`", "`path` and `pocket`"),
        ("line 8: data.sources.1.map.respnse: unknown key", "did you mean `response`?"),
        ("line 9: data.sources.2: 7", "is not a section"),
        ('line 10: data.mix.strategy: "temprature"', "Allowed: proportional, equal, temperature, weights"),
        ("line 11: trian: unknown key", "did you mean `train`?"),
        ("line 12: train.epochs: -1", "greater than 0"),
        ('line 13: train.lora.targets: "all"', "is not a list"),
        ("line 16: evaluate.forgetting: true", "is not a section"),
    ]
    assert len(found) == len(expected)
    for fault, (start, part) in zip(found, expected, strict=True):
        assert fault.startswith(start)
        assert part in fault


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "data: missing"),
        ("# only a comment", "data: missing"),
        ("- a\n- b", "not a section"),
        ("just words", "not a section"),
        ("data: [", "line 1, column 8: not readable as YAML"),
        ("data:\n\tsources: []", "line 2, column 1: not readable as YAML"),
        ("a: 1\n---\na: 2", "not readable as YAML"),
        ("base: &b x\ndata: *b", "line 2, column 7: not readable as YAML: recipes have neither aliases"),
        ("base: !!python/object/apply:os.getcwd []", "nor tags"),
        ("base: a\nbase: b\n" + SMALLEST, "line 2: base: given twice, first on line 1"),
        ("data: {sources: []}", "at least 1 item"),
        ("data: {sources: [{}]}", "exactly one of `path` or `pocket`; it has neither"),
        ("data: {sources: [{path: ''}]}", "is empty"),
        ("data: {sources: [{pocket: 0}]}", "0 must be greater than or equal to 1"),
        ("data: {sources: [{path: a/x.json}, {path: b/x.json}]}", "several sources are called x"),
        (SMALLEST + "train: {learning_rate: 0}", "0 must be greater than 0"),
        (SMALLEST + "train: {learning_rate: .nan}", "number"),
        (SMALLEST + "train: {learning_rate: 1e999}", "finite"),
        (SMALLEST + "train: {epochs: true}", "true must be a valid number"),
        (SMALLEST + "train: {threads: 1.5}", "1.5 must be a valid integer"),
        (SMALLEST + "train: {epochs: '2'}", '"2" must be a valid number'),
        (SMALLEST + "train: {tokens_per_batch: 100}", "below max_length = 2048"),
        (SMALLEST + "train: {tokens_per_step: 1000}", "no multiple of tokens_per_batch = 2048 (max_length"),
        (SMALLEST + "train: {tokens_per_step: 5000}", "nearest: 4096 or 6144"),
        (SMALLEST + "train: {betas: [0.9]}", "missing"),
        (SMALLEST + "evaluate: {forgetting: {pocket: 3, path: a}}", "it has `path` and `pocket`"),
        ("data: {sources: [{pocket: 1}], mix: {temperature: 2}}", "no effect with `strategy: proportional`"),
        ("data: {sources: [{pocket: 1}], mix: {strategy: weights}}", "need each other"),
        ("data: {sources: [{pocket: 1}], mix: {strategy: temperature}}", "is proportional at `temperature: 1`"),
        ("data: {sources: [{pocket: 1}], mix: {strategy: weights, weights: {a: 0.5, b: 0.4}}}", "sum to 0.9, not 1"),
        ("data: {sources: [{pocket: 1}], mix: {normalise: true}}", "no effect without `weights`"),
        ("data: {sources: [{pocket: 1}], mix: {strategy: equal, cap: 9}}", "`cap` has no effect"),
        ("data: {sources: [{pocket: 1}], hold_out: {folds: {of: 3, fold: 3}}}", "they are 0 to 2"),
        ("data: {sources: [{pocket: 1}], hold_out: {items: 0.1, folds: {of: 3}}}", "no effect beside `folds`"),
        ("data: {sources: [{pocket: 1}], hold_out: {relatives: flan}}", "`relatives` has no effect without `clusters`"),
        (
            "data: {sources: [{pocket: 9, sample: 5, cluster: c}]}",
            "`cluster` and `sample` have no effect with `pocket`",
        ),
        ("data: {sources: [{pocket: 9, task: t}]}", "`task` has no effect with `pocket`"),
        ("data: {sources: [{pocket: 9, format: text}]}", "`format` has no effect with `pocket`"),
        ("data: {sources: [{pocket: 9, map: {text: t}}]}", "`map` has no effect with `pocket`"),
        ("data: {sources: [{path: a, map: {text: t, system: s, response: r}}]}", "reads nothing from response, system"),
        ("data: {sources: [{path: a, map: {messages: m, instruction: i}}]}", "reads nothing from instruction"),
        ("data: {sources: [{path: a, map: {messages: m, text: t}}]}", "reads nothing from text"),
        ("data: {sources: [{pocket: 9, name: replay}]}", "can't be called replay"),
        ("data: {sources: [{path: forgetting.jsonl}]}", "give it another `name`"),
        (SMALLEST + "train: {lora: {rank: 8}}", "`lora` has no effect with `method: full`"),
        (SMALLEST + "train: {schedule: constant, floor: 0.2}", "`floor` has no effect with `schedule: constant`"),
        ("data: {sources: [{pocket: 1}], hold_out: {items: 0.6}}", "less than or equal to 0.5"),
        ("data: {sources: [{pocket: 1}], replay: {pocket: 1, share: 0.95}}", "less than or equal to 0.9"),
    ],
)
def test_each_fault_is_one_message(write, text, part):
    found = faults(write(text))
    assert len(found) == 1, found
    assert part in found[0]


def test_numbers_and_words_mean_what_they_look_like():
    values = read_document("[1, 2e-4, 1.5, .5, 010, no, on, 12:30, 2020-01-01, true, null, ~, 'x', ]").values
    assert values == (1, 2e-4, 1.5, 0.5, "010", "no", "on", "12:30", "2020-01-01", True, None, None, "x")


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
trees = st.recursive(leaves, lambda t: st.lists(t).map(tuple) | st.dictionaries(st.text(min_size=1), t), max_leaves=8)


@given(trees)
def test_what_is_written_reads_back_the_same(value):
    assert read_document(to_yaml(value)).values == value


@given(st.text(alphabet="0123456789eE+-._truefalsnoy~:", max_size=8))
def test_written_words_are_words_to_other_readers_too(word):
    assert yaml.safe_load(to_yaml([word])) == [word]


@pytest.mark.parametrize("name", ["quickstart", "full", "lora", "cluster"])
@pytest.mark.parametrize("override", ["train.learning_rate=3e-5", "train.schedule=constant", "train.method=full"])
def test_the_complete_recipe_is_the_same_recipe(write, name, override):
    loaded = load_recipe(name, [override, "data.sources.1.path=some.jsonl"])
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/recipe.yaml").write_text(loaded.complete(), encoding="utf-8")
    again = load_recipe("runs/one")
    assert again.recipe == loaded.recipe
    assert again.name == "one"


def test_overrides(write):
    name = write(SMALLEST + "train: {epochs: 3}\n")
    recipe = load_recipe(
        name,
        [
            "train.epochs=5",
            "train.method=lora",
            "train.lora.targets=[q_proj, v_proj]",
            "evaluate.forgetting.pocket=20",
            "data.sources.0.pocket=7",
            "data.sources.1.path=more.jsonl",
            "base=Qwen/Qwen3-0.6B-Base",
        ],
    ).recipe
    assert recipe.train.epochs == 5
    assert recipe.train.lora.targets == ("q_proj", "v_proj")
    assert recipe.evaluate.forgetting is not None and recipe.evaluate.forgetting.pocket == 20
    assert [source.name for source in recipe.data.sources] == ["pocket", "more"]
    assert recipe.data.sources[0].pocket == 7
    assert recipe.base == "Qwen/Qwen3-0.6B-Base"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.epochs", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("train..epochs=3", "not of the form key=value"),
        ("train.epoch=3", "did you mean `epochs`?"),
        ("train.epochs=many", '"many" must be a valid number'),
        ("train.lora.targets=[q_proj", "not readable as YAML"),
        ("data.sources.7.path=x", "`7` is no entry of a list of 1"),
        ("seed.x=1", "where `x` needs a section"),
    ],
)
def test_a_wrong_override_is_named(write, override, part):
    (found,) = faults(write(SMALLEST + "seed: 3"), override)
    assert found.startswith(f"--set {override}")
    assert part in found


def test_paths_are_relative_to_the_file_and_overrides_to_the_current_folder(write, tmp_path):
    Path("recipes/model").mkdir(parents=True)
    name = write(
        "base: model\ndata: {sources: [{path: a.json}, {path: /b.json}, {path: 'hub:o/n'}], replay: {path: t/*.txt}}\n",
        "recipes/mine.yaml",
    )
    loaded = load_recipe(name, ["evaluate.forgetting.path=w.txt", "data.sources.3.path=c.json"])
    recipe = loaded.recipe
    folder = tmp_path / "recipes"
    assert [source.path for source in recipe.data.sources] == [
        str(folder / "a.json"),
        "/b.json",
        "hub:o/n",
        str(tmp_path / "c.json"),
    ]
    assert recipe.base == str(folder / "model")
    assert recipe.data.replay is not None and recipe.data.replay.path == str(folder / "t/*.txt")
    assert recipe.evaluate.forgetting is not None and recipe.evaluate.forgetting.path == str(tmp_path / "w.txt")


def test_the_embedded_base_wins_over_a_folder_of_its_name(write):
    Path("pocket").mkdir()
    assert load_recipe(write(SMALLEST)).recipe.base == "pocket"
    assert Path(load_recipe("mine.yaml", ["base=./pocket"]).recipe.base).is_absolute()


def test_a_recipe_that_is_not_there(write):
    with pytest.raises(UserError, match="Did you mean `quickstart`"):
        load_recipe("quikstart")
    with pytest.raises(UserError, match="shipped recipe: cluster, full, lora, quickstart"):
        load_recipe("zzz.yaml")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"folder without a recipe\.yaml"):
        load_recipe("empty")


def test_files_that_are_no_recipes(write):
    Path("latin.yaml").write_bytes("base: é".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe("latin.yaml")
    with pytest.raises(UserError, match="too much for a recipe"):
        load_recipe(write("x" * 1_000_001, "data.jsonl"))


def test_a_byte_order_mark_is_no_fault(write):
    assert load_recipe(write("\ufeff" + SMALLEST)).recipe.data.sources[0].pocket == 10


def test_the_schema_describes_every_section():
    schema = Recipe.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["base"]["description"].startswith("The base model")
    named = """BertScore Bottleneck Clean Coverage Data DataEngine Decoding Decontaminate Dedup Distill Evaluate
    EvaluationFile Filter Folds Forgetting Freeze HoldOut Lora Mix Prompt Replay Source Suite Templates Train"""
    assert set(schema["$defs"]) == set(named.split())


def test_the_schema_describes_every_key():
    schema = Recipe.model_json_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    keys = {
        f"{name}.{key}": value for name, section in sections.items() for key, value in section["properties"].items()
    }
    assert not [key for key, value in keys.items() if not value.get("description")]


def test_formats_columns_and_metrics_are_those_of_the_stages():
    assert set(get_args(Format)) == {shape.name for shape in SHAPES}
    assert set(get_args(Column)) == set(MAP_KEYS)
    assert set(get_args(Metric)) == {"auto", *METRICS}


@pytest.mark.parametrize("name", ["quickstart", "full", "lora", "cluster"])
def test_training_settings_take_what_a_recipe_gives(name):
    recipe = load_recipe(name).recipe
    train, settings = recipe.train, settings_of(recipe)
    assert settings.batches_per_step == train.tokens_per_step // train.tokens_per_batch


def test_values_are_parsed_as_in_a_recipe():
    assert parse_value("[a, 2e-4]") == ("a", 2e-4)
    with pytest.raises(ValueError, match="not readable"):
        parse_value("[a")


def test_paths_of_curation_are_relative_to_the_recipe_too(write, tmp_path):
    curation = "dedup: {reference: [known.jsonl, 'hub:a/b']}, decontaminate: {against: [{path: test/*.jsonl}]}"
    text = f"data: {{sources: [{{pocket: 10}}], {curation}}}"
    data = load_recipe(write(text)).recipe.data
    assert data.dedup.reference == (str(tmp_path / "known.jsonl"), "hub:a/b")
    assert data.decontaminate.against[0].path == str(tmp_path / "test/*.jsonl")
    assert data.decontaminate.against[0].name == "test"


def test_metrics_may_be_given_by_task(tmp_path):
    path = tmp_path / "r.yaml"
    text = "data: {sources: [{pocket: 9}]}\nevaluate: {metric: {default: auto, summary: rouge_l, mood: macro_f1}}\n"
    path.write_text(text)
    assert dict(load_recipe(str(path)).recipe.evaluate.metric)["mood"] == "macro_f1"
    path.write_text(text.replace("macro_f1", "macro_f2"))
    with pytest.raises(RecipeError, match="macro_f2"):
        load_recipe(str(path))


def test_bertscore_and_its_model_come_together(tmp_path):
    (tmp_path / "bert").mkdir()
    path = tmp_path / "r.yaml"
    path.write_text("data: {sources: [{pocket: 9}]}\nevaluate: {metric: bertscore}\n")
    with pytest.raises(RecipeError, match="needs a model"):
        load_recipe(str(path))
    path.write_text("data: {sources: [{pocket: 9}]}\nevaluate: {bertscore: {model: bert}}\n")
    with pytest.raises(RecipeError, match="no effect where no `metric` is `bertscore`"):
        load_recipe(str(path))
    path.write_text("data: {sources: [{pocket: 9}]}\nevaluate: {metric: {x: bertscore}, bertscore: {model: bert}}\n")
    assert load_recipe(str(path)).recipe.evaluate.bertscore.model == str(tmp_path / "bert")

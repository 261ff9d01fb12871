import json

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from tunesmith.base.errors import DataError
from tunesmith.data.sources import hub
from tunesmith.data.sources.read import read_source


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A snapshot on disk in place of the Hub; what was asked of it is noted."""
    asked = {}

    def snapshot(repo, **options):
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(json.dumps({"prompt": split, "completion": "a"}))
    (tmp_path / "README.md").write_text("card")
    return asked


def test_a_hub_data_set_gives_its_training_files(served):
    source = read_source("h", "hub:owner/name")
    assert [row.prompt[0].content for row in source.rows] == ["train"]
    assert (served["repo"], served["repo_type"], served["revision"]) == ("owner/name", "dataset", None)
    assert source.note == "read from train.jsonl"


def test_a_glob_and_a_revision_choose(served):
    source = read_source("h", "hub:owner/name@v1:data/te*.jsonl")
    assert [row.prompt[0].content for row in source.rows] == ["test"]
    assert (served["revision"], served["allow_patterns"]) == ("v1", ["data/te*.jsonl"])
    with pytest.raises(DataError, match="no data files"):
        read_source("h", "hub:owner/name:*.csv")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalEntryNotFoundError("no"), "Go online"),
        (HFValidationError("bad id"), "bad id"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_failures_say_what_to_do(monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(DataError, match=said):
        hub.fetch("hub:owner/name", [])


def test_an_address_that_is_none():
    with pytest.raises(DataError, match="hub:owner/name"):
        hub.fetch("hub:", [])

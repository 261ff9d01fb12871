"""Data sets of the Hugging Face Hub: their files are fetched as they are and read by Tunesmith's own reader."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tunesmith.base.errors import DataError

PREFIX = "hub:"
# The Hub's error for an answer derives from OSError and from the error of whichever HTTP library this version uses,
# which is also what a broken transfer raises.
_FAILURES: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, HFValidationError)
_ADDRESS = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+|[\w.-]+)(@(?P<revision>[^:]+))?(:(?P<glob>.+))?")


def fetch(address: str, patterns: list[str]) -> tuple[Path, str | None]:
    """Fetch "hub:owner/name[@revision][:glob]" into the Hub's cache; return the folder and the glob, if one is given.

    patterns: what to fetch when the address names no glob. Raises DataError with what to do about it.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise DataError(
            f"{address!r} is no address of a Hub data set, so nothing can be fetched. "
            f"Write hub:owner/name, hub:owner/name:data/*.jsonl or hub:owner/name@revision:data/*.jsonl."
        )
    repo, glob = match["repo"], match["glob"]
    try:
        folder = snapshot_download(
            repo, repo_type="dataset", revision=match["revision"], allow_patterns=[glob] if glob else patterns
        )
    except _FAILURES as error:
        raise DataError(f"could not fetch {address}: {_cause(error, repo)} Nothing was read.") from error
    return Path(folder), glob


def _cause(error: BaseException, repo: str) -> str:
    if isinstance(error, GatedRepoError):
        return f"its terms must be accepted first, at https://huggingface.co/datasets/{repo}, and HF_TOKEN be set."
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision. Check the part behind @."
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such data set. Check the spelling; for a private one set HF_TOKEN."
    if isinstance(error, LocalEntryNotFoundError):
        return "the Hub can't be reached and the files are not in its cache. Go online, or give a local path."
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0]}."

"""Whether a source can be had: files are there, a data set of the hub answers, and is open to whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vocabgraft.corpus.source import HubName, Located, locate
from vocabgraft.corpus.sources import Source
from vocabgraft.errors import DataError

#: Seconds to wait for an answer of the hub.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Reach:
    """What was found, and what to do about it in a sentence."""

    status: Literal["here", "reachable", "gated", "not reachable", "missing"]
    says: str

    @property
    def good(self) -> bool:
        """Whether the source can be read now."""
        return self.status in ("here", "reachable")


def reach(source: str, base_dir: Path | None = None) -> Reach:
    """Look for a source string; the hub is asked for its record of the data set, not for the data."""
    try:
        located = locate(source, base_dir)
    except DataError as e:
        return Reach("missing", str(e))
    if located.hub is not None:
        return reach_hub(located.hub, located.known)
    return _here(located)


def reach_hub(hub: HubName, known: Source | None = None) -> Reach:
    """Ask the hub for a data set."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        return Reach("not reachable", "the hub cannot be asked: pip install 'vocabgraft[hub]'")
    how = known.access_note if known else "log in at the hub, accept the terms on its page, then: hf auth login"
    page, api = f"https://huggingface.co/datasets/{hub.dataset}", HfApi()
    try:
        info: Any = api.dataset_info(hub.dataset, revision=hub.revision, timeout=TIMEOUT)
        if info.gated:
            api.auth_check(hub.dataset, repo_type="dataset")
    except GatedRepoError:
        return Reach("gated", f"{page} is gated. {how}")
    except RevisionNotFoundError:
        return Reach("missing", f"{page} has no commit {hub.revision}; see {page}/commits/main")
    except RepositoryNotFoundError:
        return Reach("missing", f"{page} is not there, or is private: log in (hf auth login), or download it elsewhere")
    except Exception as e:  # no network, a proxy, a hub that is down: each library has errors of its own
        found = " ".join(str(e).split())[:160] or type(e).__name__
        return Reach("not reachable", f"{page} does not answer ({found}); download it elsewhere and name the files")
    return Reach("reachable", f"{page}, commit {info.sha}")


def _here(located: Located) -> Reach:
    size = sum(path.stat().st_size for path in located.paths) / 1e6
    files = "1 file" if len(located.paths) == 1 else f"{len(located.paths)} files"
    return Reach("here", f"{files}, {size:,.1f} MB")

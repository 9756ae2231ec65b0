"""A merged folder is the live model, for every kind of decoder and way of tying; an adapter folder gives the same."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vocabgraft.audit import audit_folder
from vocabgraft.deployment.adapter import load_adapter, merge_adapter, read_adapter, write_adapter
from vocabgraft.deployment.merge import export_folder
from vocabgraft.embedding.rows import Rows, grow
from vocabgraft.models.load import load_model
from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.training import lora
from vocabgraft.training.graft import ADAPTERS, OLD, Graft, config_of, save_graft

KINDS = {
    "gemma3": ("gemma", "slots"),
    "gemma3-multimodal": ("gemma-images", "append"),
    "llama": ("llama3", "append"),
    "qwen2": ("qwen", "slots"),
    "qwen3": ("qwen", "slots"),
}
WAYS = ("tied", "row-untied", "untied")
SPEC = lora.AdapterSpec(2, 4, ("q_proj", "down_proj"), "bf16", "rslora")
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "head_dim": 16,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
GEMMA = SHAPE | {"sliding_window": 4, "query_pre_attn_scalar": 16}


@dataclass(frozen=True)
class Grafted:
    """A base folder, its expanded tokenizer, what was learnt over both, and the live model's answer to a text."""

    way: str
    base: Path
    tokenizer: Path
    state: Path
    expansion: Expansion
    tokens: torch.Tensor
    logits: torch.Tensor

    @property
    def ids(self) -> torch.Tensor:
        return torch.tensor(self.expansion.ids)

    def export(self, out: Path) -> dict[str, int]:
        return export_folder(
            self.base, self.tokenizer, self.state, self.ids, out, scale=SPEC.scale, size=self.expansion.rows
        )

    def adapter(self, out: Path) -> Path:
        write_adapter(self.base, self.tokenizer, self.state, self.ids, out, scale=SPEC.scale, size=self.expansion.rows)
        return out


def families() -> Any:
    path = Path(__file__).parents[1] / "tokenizer" / "families.py"
    spec = importlib.util.spec_from_file_location("families_of_tokenizers", path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def random_model(kind: str, rows: int, image: int, *, tied: bool) -> Any:
    import transformers as t

    torch.manual_seed(0)
    end = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "tie_word_embeddings": tied}
    text = {"vocab_size": rows, **end}
    config = {
        "gemma3": lambda: t.Gemma3TextConfig(**GEMMA, **text),
        "gemma3-multimodal": lambda: t.Gemma3Config(
            text_config=GEMMA | text,
            vision_config=VISION,
            mm_tokens_per_image=1,
            image_token_index=image,
            boi_token_index=5,
            eoi_token_index=6,
            tie_word_embeddings=tied,
        ),
        "llama": lambda: t.LlamaConfig(**SHAPE, **text),
        "qwen2": lambda: t.Qwen2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}, **text),
        "qwen3": lambda: t.Qwen3Config(**SHAPE, **text),
    }[kind]()
    family = t.AutoModelForImageTextToText if "multimodal" in kind else t.AutoModelForCausalLM
    model = family.from_config(config, dtype=torch.float32)
    for name, weight in model.named_parameters():
        if "projection_weight" in name:  # begins as zeros, and no image would be seen
            torch.nn.init.normal_(weight, 0.0, 0.5)
    return model


@pytest.fixture(scope="module")
def make_tokenizers(
    korean: tuple[str, ...], english: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Path, Path, Expansion]]:
    """(base, expanded, expansion) of a family of tokenizers, made once."""
    made: dict[str, tuple[Path, Path, Expansion]] = {}
    module = families()

    def make(family: str, place: str) -> tuple[Path, Path, Expansion]:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            module.FAMILIES[family].write(root / "base", [*english[:40], *korean[:40:3]])
            config = config_of(root / "base")
            if family == "gemma-images":  # no padded rows: appended pieces need more
                config["text_config"]["vocab_size"] = config["image_token_index"] + 1
                (root / "base" / "config.json").write_text(json.dumps(config), "utf-8")
                (root / "base" / "preprocessor_config.json").write_text('{"image_seq_length": 1}', "utf-8")
            pieces = module.learn_pieces(root / "base", korean[:40], 20)
            expansion = expand_tokenizer(root / "base", pieces, range(1, 21), root / "expanded", place=place)
            made[family] = root / "base", root / "expanded", expansion
        return made[family]

    return make


@pytest.fixture(scope="module")
def make_grafted(
    make_tokenizers: Callable[[str, str], tuple[Path, Path, Expansion]],
    korean: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Grafted]:
    """A random model of a kind, tied in a way, with rows (and old rows, and adapters) that learnt something."""

    def make(kind: str, way: str, *, everything: bool = True, shard: str = "1GB") -> Grafted:
        root = tmp_path_factory.mktemp(f"{kind}-{way}")
        tokens, expanded, expansion = make_tokenizers(*KINDS[kind])
        base, state = root / "base", root / "state"
        state.mkdir()
        stated = config_of(tokens)
        rows = stated.get("text_config", stated)["vocab_size"]
        random = random_model(kind, rows, stated.get("image_token_index", 0), tied=way != "untied")
        random.save_pretrained(base, max_shard_size=shard)
        for file in tokens.iterdir():
            if file.name not in ("config.json", "generation_config.json"):
                (base / file.name).write_bytes(file.read_bytes())
        end = {"bos_token_id": 2, "eos_token_id": [1, 0], "pad_token_id": 0}
        (base / "generation_config.json").write_text(json.dumps(end), "utf-8")
        (base / "LICENSE").write_text("terms of the base", "utf-8")
        (base / "merges.txt").write_text("stale", "utf-8")
        return learn(root, way, base, expanded, expansion, korean[0], everything=everything)

    return make


@torch.no_grad()
def learn(
    root: Path, way: str, base: Path, tokenizer: Path, expansion: Expansion, text: str, *, everything: bool
) -> Grafted:
    from transformers import AutoTokenizer

    model = load_model(base, dtype="float32")
    grow(model, expansion.rows)
    rows = Rows(model, torch.tensor(expansion.ids), untie=way == "row-untied")
    generator = torch.Generator().manual_seed(1)
    graft = Graft(model, rows)
    if everything:
        rows.open_old()
        graft.adapters = lora.attach(
            model, rank=SPEC.rank, alpha=SPEC.alpha, modules=SPEC.modules, seed=0, kind=SPEC.kind
        )
        for adapter in graft.adapters.values():
            adapter.normal_(0.0, 0.05, generator=generator)
        for route in rows.routes("old"):
            rows.old[route][20:30].add_(0.01)
    for route in rows.routes():
        rows.new[route].normal_(0.0, 0.03, generator=generator)
    rows.write()
    save_graft(graft, root / "state", None, ("input.old", "input.new", "lora"))
    tokens = AutoTokenizer.from_pretrained(tokenizer)(text[:150], return_tensors="pt")["input_ids"]
    assert set(tokens[0].tolist()) & set(expansion.ids), "the text uses new pieces"
    return Grafted(way, base, tokenizer, root / "state", expansion, tokens, answer(model, tokens))


@torch.no_grad()
def answer(model: Any, tokens: torch.Tensor, **more: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=tokens, use_cache=False, **more).logits
    return found


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_folder_and_the_adapter_folder_are_the_live_model(
    make_grafted: Callable[..., Grafted], tmp_path: Path, kind: str, way: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    grafted = make_grafted(kind, way)
    grafted.export(tmp_path / "model")
    family = AutoModelForImageTextToText if "multimodal" in kind else AutoModelForCausalLM
    merged = family.from_pretrained(tmp_path / "model", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")

    assert far(answer(merged, grafted.tokens), grafted.logits) <= 1e-6
    assert len(merged.get_input_embeddings().weight) >= len(tokenizer)
    config = config_of(tmp_path / "model")
    for level in (config, config.get("text_config", config)):
        assert level.get("vocab_size", 0) in (0, merged.get_input_embeddings().weight.shape[0])
        assert level["tie_word_embeddings"] == (way == "tied")
    for name in ("generation_config.json", "LICENSE"):
        assert (tmp_path / "model" / name).read_bytes() == (grafted.base / name).read_bytes()
    for file in grafted.tokenizer.iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes()
    wrong = {f.name: f.found for f in audit_folder(tmp_path / "model").findings if f.status == "fail"}
    assert wrong == {}

    adapter = grafted.adapter(tmp_path / "adapter")
    live, loaded = load_adapter(grafted.base, adapter, dtype="float32")
    assert far(answer(live, grafted.tokens), answer(merged, grafted.tokens)) == 0.0
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert live.config.get_text_config().vocab_size == len(live.get_input_embeddings().weight)
    assert read_adapter(adapter).rows == way
    merge_adapter(grafted.base, adapter, tmp_path / "again")
    files = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == files


@pytest.mark.parametrize("way", WAYS)
def test_what_an_image_says_is_the_same_before_and_after_the_expansion(
    make_grafted: Callable[..., Grafted], tmp_path: Path, way: str
) -> None:
    from transformers import AutoModelForImageTextToText

    grafted = make_grafted("gemma3-multimodal", way, everything=False)
    grafted.export(tmp_path / "model")
    image = config_of(grafted.base)["image_token_index"]
    tokens = torch.tensor([[2, 300, 301, image, 310, 311, 420]])
    pixels = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    kinds = (tokens == image).long()
    before, after = (
        answer(
            AutoModelForImageTextToText.from_pretrained(folder, dtype="auto"),
            tokens,
            pixel_values=pixels,
            token_type_ids=kinds,
        )
        for folder in (grafted.base, tmp_path / "model")
    )
    old = [i for i in range(before.shape[-1]) if i not in grafted.expansion.ids]
    assert far(before[..., old], after[..., old]) <= 1e-5
    other = answer(
        AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype="auto"),
        tokens,
        pixel_values=1 - pixels,
        token_type_ids=kinds,
    )
    assert far(other, after) > 1e-3, "the image is looked at"
    assert config_of(tmp_path / "model")["image_token_index"] == image
    for name in ("processor_config.json", "preprocessor_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (grafted.base / name).read_bytes()
    assert after.shape[-1] == grafted.expansion.rows > before.shape[-1]


def test_a_base_in_shards_gives_the_same_shards_and_an_index_of_them(
    make_grafted: Callable[..., Grafted], tmp_path: Path
) -> None:
    grafted = make_grafted("llama", "row-untied", shard="60KB")
    counts = grafted.export(tmp_path / "model")
    before, after = (
        json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        for folder in (grafted.base, tmp_path / "model")
    )
    assert len(set(before["weight_map"].values())) > 2
    head = {"lm_head.weight": before["weight_map"]["model.embed_tokens.weight"]}
    assert after["weight_map"] == before["weight_map"] | head
    shards = [load_file(p) for p in (tmp_path / "model").glob("*.safetensors")]
    assert sum(len(s) for s in shards) == len(after["weight_map"]) == counts["changed"] + counts["kept"]
    size = sum(t.numel() * t.element_size() for s in shards for t in s.values())
    assert after["metadata"]["total_size"] == size
    assert far(answer(load_model(tmp_path / "model", dtype="float32"), grafted.tokens), grafted.logits) <= 1e-6


def test_a_file_written_tensor_by_tensor_is_the_one_the_library_writes(
    make_grafted: Callable[..., Grafted], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    make_grafted("gemma3", "tied").export(tmp_path / "model")
    written = tmp_path / "model" / "model.safetensors"
    save_file(load_file(written), str(tmp_path / "library"), metadata={"format": "pt"})
    assert written.read_bytes() == (tmp_path / "library").read_bytes()


def test_an_adapter_folder_holds_what_moved_and_no_more(make_grafted: Callable[..., Grafted], tmp_path: Path) -> None:
    grafted = make_grafted("gemma3", "row-untied")
    adapter = grafted.adapter(tmp_path / "adapter")
    old = load_file(adapter / OLD)
    assert old["input.old_ids"].tolist() == list(range(20, 30))
    assert os.path.samefile(adapter / ADAPTERS, grafted.state / ADAPTERS)
    assert os.path.samefile(adapter / "tokenizer.json", grafted.tokenizer / "tokenizer.json")
    weights = sum(p.stat().st_size for p in adapter.glob("*.safetensors"))
    assert weights < (grafted.base / "model.safetensors").stat().st_size / 4
    few = make_grafted("gemma3", "tied", everything=False).adapter(tmp_path / "rows")
    assert sorted(p.name for p in few.glob("*.safetensors")) == ["new_rows.safetensors"]


def test_a_template_comes_from_the_base_only_where_the_tokenizer_has_none(
    make_grafted: Callable[..., Grafted], tmp_path: Path
) -> None:
    grafted = make_grafted("gemma3", "tied", everything=False)
    (grafted.base / "chat_template.jinja").write_text("of the base", "utf-8")
    grafted.export(tmp_path / "both")
    own = (grafted.tokenizer / "chat_template.jinja").read_bytes()
    assert (tmp_path / "both" / "chat_template.jinja").read_bytes() == own
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in grafted.tokenizer.iterdir():
        if file.suffix != ".jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    export_folder(grafted.base, bare, grafted.state, grafted.ids, tmp_path / "one")
    assert (tmp_path / "one" / "chat_template.jinja").read_text("utf-8") == "of the base"
    assert not (tmp_path / "one" / "merges.txt").exists(), "a stale tokenizer file of the base"


def test_a_configuration_that_left_its_rows_to_the_default_says_them_once_they_grew(
    make_grafted: Callable[..., Grafted], tmp_path: Path
) -> None:
    """As the files of Gemma 3 4B and larger do."""
    grafted = make_grafted("gemma3-multimodal", "tied", everything=False)
    config = config_of(grafted.base)
    del config["text_config"]["vocab_size"]
    (grafted.base / "config.json").write_text(json.dumps(config), "utf-8")
    grafted.export(tmp_path / "model")
    assert config_of(tmp_path / "model")["text_config"]["vocab_size"] == grafted.expansion.rows


@pytest.mark.parametrize(("said", "expected"), [("4.57.1", "4.57.1"), (None, "5.0.0")])
def test_a_model_says_a_version_of_transformers_so_that_its_tokenizer_is_not_taken_for_a_broken_one(
    said: str | None, expected: str, make_grafted: Callable[..., Grafted], tmp_path: Path
) -> None:
    grafted = make_grafted("gemma3", "tied", everything=False)
    config = {k: v for k, v in config_of(grafted.base).items() if k != "transformers_version"}
    (grafted.base / "config.json").write_text(json.dumps(config | ({"transformers_version": said} if said else {})))
    grafted.export(tmp_path / "model")
    assert config_of(tmp_path / "model")["transformers_version"] == expected

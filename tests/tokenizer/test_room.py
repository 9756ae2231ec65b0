"""What new pieces may take: placeholders nobody names, and rows nobody uses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.room import Room, free_ids


@pytest.mark.parametrize("name", ["gemma", "gemma-images", "llama2", "llama3", "qwen", "smollm2"])
def test_each_family_has_the_room_its_makers_left(families, make_base, name: str) -> None:
    base, _ = make_base(name)
    family, room = families.FAMILIES[name], free_ids(base)
    padded = [i for i in room.free if i >= room.next_id]
    assert (len(room.free) - len(padded), len(padded)) == (family.slots, family.padded)
    assert list(room.free) == sorted(room.free)
    assert padded == [] or padded == list(range(room.next_id, room.rows))


def test_reserved_slots_are_kept_and_say_so(make_base) -> None:
    base, _ = make_base("gemma")
    names = load_tokenizer(base).id_to_token
    room = free_ids(base, 200)
    assert [names(i) for i in room.free[:2]] == ["<unused200>", "<unused201>"]
    assert len(room.kept) == 200
    assert set(room.kept.values()) == {"below reserved_slots = 200"}
    assert len(free_ids(base, 0).free) == 499


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chat_template.jinja", "{{ '<unused194>thought' }}"),
        ("additional_chat_templates/thinking.jinja", "{{ '<unused194>' }}"),
        ("chat_template.json", {"chat_template": "{{ '<unused194>thought' }}"}),
        ("tokenizer_config.json", {"chat_template": "{{ '<unused194>' }}"}),
        ("tokenizer_config.json", {"think_token": {"content": "<unused194>", "special": True}}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<unused194>"]}),
        ("processor_config.json", {"image_token": "<unused194>"}),
        ("preprocessor_config.json", {"image_token_id": "ID"}),
        ("generation_config.json", {"eos_token_id": [1, "ID"]}),
        ("generation_config.json", {"suppress_tokens": ["ID"]}),
        ("config.json", {"vocab_size": 1, "boi_token_index": "ID"}),
        ("config.json", {"text_config": {"bad_words_ids": [["ID"]]}}),
    ],
)
def test_a_slot_that_a_file_names_is_kept_with_the_name_of_the_file(make_base, tmp_path, file: str, content) -> None:
    base = shutil.copytree(make_base("gemma")[0], tmp_path / "base")
    slot = load_tokenizer(base).token_to_id("<unused194>")
    assert slot in free_ids(base).free
    (base / file).parent.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content).replace('"ID"', str(slot))
    (base / file).write_text(text, "utf-8")
    room = free_ids(base)
    assert slot not in room.free
    assert Path(file).name in room.kept[slot]
    assert len(room.free) == 399


def test_a_list_of_all_added_tokens_names_none(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("gemma")[0], tmp_path / "base")
    added = load_tokenizer(base).get_added_tokens_decoder()
    entries = {str(i): {"content": t.content, "special": t.special} for i, t in added.items()}
    (base / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}), "utf-8")
    (base / "added_tokens.json").write_text(json.dumps({t.content: i for i, t in added.items()}), "utf-8")
    assert len(free_ids(base).free) == 400


def test_named_placeholders_of_a_byte_level_tokenizer_are_kept(make_base) -> None:
    base, _ = make_base("llama3")
    names = load_tokenizer(base).id_to_token
    room = free_ids(base)
    assert {names(i): why for i, why in room.kept.items()} == {
        "<|reserved_special_token_2|>": "named by tokenizer_config.json",
        "<|reserved_special_token_4|>": "eos_token_id of generation_config.json",
    }


def test_a_placeholder_in_the_post_processor_is_kept(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("llama3")[0], tmp_path / "base")
    tokenizer = load_tokenizer(base)
    raw = (base / "tokenizer.json").read_text("utf-8")
    head, tail = raw.split('"post_processor"')
    first = tokenizer.token_to_id("<|begin_of_text|>")
    tail = tail.replace("<|begin_of_text|>", "<|reserved_special_token_9|>").replace(f"{first}", f"{first + 13}", 1)
    (base / "tokenizer.json").write_text(f'{head}"post_processor"{tail}', "utf-8")
    assert tokenizer.token_to_id("<|reserved_special_token_9|>") not in free_ids(base).free


def test_rows_behind_an_id_that_no_tokenizer_file_has_are_kept(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("qwen")[0], tmp_path / "base")
    room = free_ids(base)
    config = {"video_token_id": room.next_id + 3, "text_config": {"vocab_size": room.rows}}
    (base / "config.json").write_text(json.dumps(config), "utf-8")
    assert free_ids(base).free == tuple(range(room.next_id, room.next_id + 3))
    with pytest.raises(TokenizerError, match=f"id {room.next_id + 3} cannot be appended: video_token_id"):
        free_ids(base).append(4)


def test_ids_of_another_tower_are_not_rows_for_text(make_base, tmp_path: Path) -> None:
    """Gemma 3n embeds ids from `vocab_offset` on with its image and audio towers."""
    base = shutil.copytree(make_base("gemma-images")[0], tmp_path / "base")
    config = json.loads((base / "config.json").read_text("utf-8"))
    config["vision_config"] = {"vocab_offset": config["image_token_index"]}
    (base / "config.json").write_text(json.dumps(config), "utf-8")
    room = free_ids(base)
    assert len(room.free) == 400
    with pytest.raises(TokenizerError, match=r"vocab_offset of config\.json"):
        room.append(1)


def test_without_a_config_there_are_no_padded_rows(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("qwen")[0], tmp_path / "base")
    (base / "config.json").unlink()
    room = free_ids(base)
    assert (room.free, room.rows) == ((), None)
    assert room.append(1) == ((room.next_id,), -(-(room.next_id + 1) // 64) * 64)


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [(1000, 10, None), (1000, 1, None), (995, 10, 1024), (990, 34, 1024), (990, 35, 1088), (None, 10, 1024)],
)
def test_matrices_grow_to_a_multiple_of_64_only_when_they_must(rows, count: int, expected) -> None:
    ids, needed = Room((), {}, 990, rows).append(count)
    assert (ids, needed) == (tuple(range(990, 990 + count)), expected)


def test_a_damaged_configuration_is_named(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("qwen")[0], tmp_path / "base")
    (base / "config.json").write_text("{", "utf-8")
    with pytest.raises(TokenizerError, match=r"config\.json: not JSON"):
        free_ids(base)

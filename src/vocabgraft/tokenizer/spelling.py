"""How pieces are spelt: as letters with ▁ for a space, or in the 256 letters of byte-level BPE."""

from __future__ import annotations

from tokenizers import Tokenizer

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]

LETTER_OF_BYTE: dict[int, str] = {b: chr(b) for b in _PRINTABLE} | {
    b: chr(0x100 + n) for n, b in enumerate(b for b in range(256) if b not in _PRINTABLE)
}
"""Byte -> letter, as in GPT-2's encoder.py: printable Latin-1 stands for itself, the rest follows from U+0100 on."""

_BYTE_OF_LETTER = {letter: byte for byte, letter in LETTER_OF_BYTE.items()}


def bytes_of(piece: str) -> bytes:
    """The bytes a byte-level piece stands for. KeyError when it is not spelt in the 256 letters."""
    return bytes(_BYTE_OF_LETTER[letter] for letter in piece)


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether pieces are spelt in the 256 letters of byte-level BPE (GPT-2)."""
    return "ByteLevel" in f"{tokenizer.decoder!r}{tokenizer.pre_tokenizer!r}"

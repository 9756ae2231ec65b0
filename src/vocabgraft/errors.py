"""The error tree. Every message says what is wrong, where, what was found and what to do.

VocabgraftError            a person can fix it; the command line prints it without a traceback, exit code 2
├── RecipeError            the recipe, all of its problems at once
├── DataError              corpora, questions, dictionaries
├── TokenizerError         a tokenizer that cannot be read, expanded or proven
├── ModelError             weights, configuration, a base that cannot be had
├── RunError               the run folder: stale, locked, interrupted, damaged
├── MachineError           disk, memory, device, a missing extra
└── ProofError             a check of ours failed: what must not change did change
"""

from __future__ import annotations


class VocabgraftError(Exception):
    """Something a user can understand and fix."""


class RecipeError(VocabgraftError):
    """One or more problems of a recipe, listed together."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source} has {count}\n" + "\n".join(f"  {p}" for p in problems))


class DataError(VocabgraftError):
    """A corpus, question file or dictionary is missing, empty or malformed."""


class TokenizerError(VocabgraftError):
    """A tokenizer cannot be read, expanded or proven."""


class ModelError(VocabgraftError):
    """Weights or configuration are missing, damaged or unsupported."""


class RunError(VocabgraftError):
    """A run folder is stale, locked, incomplete or damaged."""


class MachineError(VocabgraftError):
    """This machine lacks disk, memory, permission or a package."""


class ProofError(VocabgraftError):
    """A promise was broken: something that must not change did. Nothing was published."""

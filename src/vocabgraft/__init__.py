"""vocabgraft: teach an existing language model a new language without breaking what it knows.

The libraries are meant to be used on their own, for example `from vocabgraft.tokenizer.expand import expand_tokenizer`.
"""

from importlib.metadata import version

__version__ = version("vocabgraft")

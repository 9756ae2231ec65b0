"""Which whole documents of the target go on: rules of quality and of topic, as functions over texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from vocabgraft.corpus.document import Document, Tally
from vocabgraft.corpus.quality import QualityRules, presets
from vocabgraft.recipe_sections import Data

#: Says why a text is not wanted; None to keep it. A pure function of the text, so shards may be judged anywhere.
Rule = Callable[[str], str | None]


def quality_rules(data: Data) -> list[Rule]:
    """What `data.quality` asks for beyond length, script and repetition."""
    return [] if data.quality == "plain" else [QualityRules(presets()[data.quality]).reason_to_drop]


def chosen(documents: Iterable[Document], rules: Sequence[Rule], tally: Tally) -> Iterator[Document]:
    """Yield the documents that no rule drops."""
    for document in documents:
        reason = next(filter(None, (rule(document.text) for rule in rules)), None)
        if reason is None:
            yield document
        else:
            tally.drop(reason, document.id)

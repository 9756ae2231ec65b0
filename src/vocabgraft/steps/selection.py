"""Which whole documents of the target go on: rules of quality and of topic, as functions over texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vocabgraft.corpus.clean import clean_text
from vocabgraft.corpus.document import Document, Tally, read_documents, read_source
from vocabgraft.corpus.quality import QualityRules, presets
from vocabgraft.corpus.topic import learn_topic, load_topic, save_topic
from vocabgraft.recipe_data import Data
from vocabgraft.scale.tasks import Stretch

#: Says why a text is not wanted; None to keep it. A pure function of the text, so shards may be judged anywhere.
Rule = Callable[[str], str | None]
#: So many documents of the target, and so many examples, are enough to learn a topic from.
_MOST = 4_000


def learn(data: Data, target: Path, out: Path) -> dict[str, Any]:
    """Learn the topic that `data.select` gives examples of from them and the collected target, and write it to `out`;
    figures of that, or {} where no topic is asked for."""
    if not data.select.examples:
        return {}
    topic, figures = learn_topic(_sample(_examples(data)), _sample(read_documents(target)), data.select.recall)
    save_topic(out, topic)
    return figures


@lru_cache(1)
def rules_of(quality: str, topic: Stretch | None) -> tuple[Rule, ...]:
    """What `data.select` and `data.quality` ask for beyond length, script and repetition; the last ones are kept."""
    rules: list[Rule] = [load_topic(topic.path).reason_to_drop] if topic else []
    if quality != "plain":
        rules.append(QualityRules(presets()[quality]).reason_to_drop)
    return tuple(rules)


def chosen(documents: Iterable[Document], rules: Sequence[Rule], tally: Tally) -> Iterator[Document]:
    """Yield the documents that no rule drops."""
    for document in documents:
        reason = next(filter(None, (rule(document.text) for rule in rules)), None)
        if reason is None:
            yield document
        else:
            tally.drop(reason, document.id)


def _examples(data: Data) -> Iterator[Document]:
    for source in data.select.examples:
        yield from read_source(source, language=data.language, license=data.license, tally=Tally())


def _sample(documents: Iterable[Document]) -> list[str]:
    """Cleaned texts of at most so many documents, those with the least hashes: the same however they are ordered."""
    texts: dict[bytes, str] = {}
    for document in documents:
        text = clean_text(document.text)
        texts[hashlib.sha256(text.encode()).digest()] = text
        if len(texts) > 2 * _MOST:
            texts = {key: texts[key] for key in sorted(texts)[:_MOST]}
    return [texts[key] for key in sorted(texts)[:_MOST]]

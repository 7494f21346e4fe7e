"""Which training problems stand in an evaluation set: equal normalised texts, or a shared run of words."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evals.problems import normalise
from evals.records import Problem

NGRAM = 13


@dataclass(frozen=True)
class Hit:
    """`kind` is "exact" or "ngram"; `overlap` the share (0 to 1) of the evaluation problem's word runs found in training."""

    train_id: str
    eval_id: str
    kind: str
    overlap: float


def find_overlap(train: Iterable[Problem], evaluation: Sequence[Problem], n: int = NGRAM, min_overlap: float = 0.5) -> list[Hit]:
    """Every pair with equal normalised text, or with at least `min_overlap` of the evaluation problem's runs of n words
    (all of its words where it has fewer) in the training problem. Time grows with the training text, not with the pairs."""
    grams = [_ngrams(problem.text, n) for problem in evaluation]
    holders = defaultdict(list)
    for index, own in enumerate(grams):
        for gram in own:
            holders[gram].append(index)
    texts = {normalise(problem.text): index for index, problem in enumerate(evaluation)}
    return [hit for problem in train for hit in _hits(problem, evaluation, texts, grams, holders, n, min_overlap)]


def _hits(problem, evaluation, texts, grams, holders, n, min_overlap) -> Iterable[Hit]:
    exact = texts.get(normalise(problem.text))
    if exact is not None:
        yield Hit(problem.id, evaluation[exact].id, "exact", 1.0)
    shared: dict[int, int] = defaultdict(int)
    lengths = {n} | {len(gram) for own in grams for gram in own}
    for gram in set().union(*(_ngrams(problem.text, length) for length in lengths)):
        for index in holders.get(gram, ()):
            shared[index] += 1
    for index, count in shared.items():
        if index != exact and count >= min_overlap * len(grams[index]):
            yield Hit(problem.id, evaluation[index].id, "ngram", count / len(grams[index]))


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = normalise(text).split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}

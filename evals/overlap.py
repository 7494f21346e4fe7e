"""Which training problems stand in an evaluation set: equal normalised texts, or a shared run of words."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    words = [normalise(problem.text).split() for problem in evaluation]
    grams = [_ngrams(own, n) for own in words]
    holders = defaultdict(list)
    lengths = defaultdict(set)  # the first two words of a run -> how long such runs are: most positions need no longer look
    for index, own in enumerate(grams):
        for gram in own:
            holders[gram].append(index)
            lengths[gram[:2]].add(len(gram))
    exact = {tuple(own): index for index, own in enumerate(words)}
    return [hit for problem in train for hit in _hits(problem, evaluation, exact, grams, holders, lengths, min_overlap)]


def _hits(problem, evaluation, exact, grams, holders, lengths, min_overlap) -> Iterator[Hit]:
    words = normalise(problem.text).split()
    equal = exact.get(tuple(words))
    if equal is not None:
        yield Hit(problem.id, evaluation[equal].id, "exact", 1.0)
    shared = Counter(index for gram in _known_runs(words, lengths) for index in holders.get(gram, ()))
    for index, count in shared.items():
        if index != equal and count >= min_overlap * len(grams[index]):
            yield Hit(problem.id, evaluation[index].id, "ngram", count / len(grams[index]))


def _known_runs(words: list[str], lengths: dict[tuple[str, ...], set[int]]) -> set[tuple[str, ...]]:
    starts = [i for i, pair in enumerate(pairwise(words)) if pair in lengths]
    runs = {tuple(words[i : i + length]) for i in starts for length in lengths[words[i], words[i + 1]]}
    return runs | {(word,) for word in words if (word,) in lengths}


def _ngrams(words: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}

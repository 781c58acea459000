"""WordNet's tree: what stands in it, which words name what."""

from __future__ import annotations

import pytest

from hiera_cli import wordnet
from hiera_cli.checkpoints.labels import imagenet_labels
from hiera_cli.errors import UsageError


def comprised(word: str) -> int:
    return len(wordnet.indices(wordnet.concept(word).wnid, imagenet_labels()))


def test_the_tree_stands_above_the_classes_and_has_one_root() -> None:
    synsets = wordnet.synsets()
    assert len(synsets) == 1860
    assert [synset.name for synset in synsets.values() if not synset.parents] == ["entity"]
    assert {parent for synset in synsets.values() for parent in synset.parents} <= set(synsets)
    # Each class is a leaf, under the same names, and there is no other leaf.
    leaves = {wnid for wnid, below in wordnet.kinds().items() if not below}
    assert leaves == {label.wnid for label in imagenet_labels()}
    assert all(", ".join(synsets[label.wnid or ""].names) == label.text for label in imagenet_labels())


@pytest.mark.parametrize(
    ("word", "classes"),
    [
        *[("entity", 1000), ("animal", 398), ("dog", 118), ("bird", 59), ("vehicle", 67), ("musical instrument", 26)],
        *[("furniture", 22), ("cat", 7), ("Domestic  Dog", 118), ("domestic_dog", 118), ("n02084071", 118)],
        *[("tabby", 1), ("tabby, tabby cat", 1), ("N02123045", 1)],
    ],
)
def test_a_concept_comprises_its_classes(word: str, classes: int) -> None:
    assert comprised(word) == classes


def test_of_several_meanings_the_usual_name_comes_first_and_the_most_classes() -> None:
    assert [(synset.wnid, synset.name) for synset in wordnet.meanings("cat")] == [
        ("n02121620", "cat"),
        ("n02127808", "big cat"),
    ]
    for word in ("ball", "car", "crane", "plane", "wagon"):
        found = wordnet.meanings(word)
        usual = [synset.name == word for synset in found]
        assert usual == sorted(usual, reverse=True)
        counts = [len(wordnet.classes()[synset.wnid]) for synset in found if synset.name == word]
        assert counts == sorted(counts, reverse=True)


def test_a_word_that_is_in_none_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        wordnet.concept("wolfhoud")
    assert raised.value.message == "'wolfhoud' is not a concept of WordNet's above or among ImageNet's classes"
    assert raised.value.hint == "The nearest words: wolfhound, irish wolfhound, wood."


def test_what_says_nothing_is_in_the_tree() -> None:
    assert set(wordnet.synsets()) >= wordnet.SAYING_NOTHING
    assert not wordnet.SAYING_NOTHING & {label.wnid for label in imagenet_labels()}

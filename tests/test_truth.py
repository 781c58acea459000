"""Names of classes, as people give them to folders, and what they mean for a model."""

from __future__ import annotations

import pytest

from hiera_cli.checkpoints.labels import Label, imagenet_labels
from hiera_cli.errors import UsageError
from hiera_cli.evaluation.truth import truths

IMAGENET = imagenet_labels()
OWN = (Label(0, None, "ham"), Label(1, None, "Spam, canned"), Label(2, None, "café"), Label(3, None, "0"))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tabby, tabby cat", 281),
        ("tabby,_Tabby_Cat", 281),
        ("tabby", 281),
        ("Tabby-Cat", 281),
        ("n02123045", 281),
        ("n02123045-tabby", 281),
        ("281", 281),
        ("0281", 281),
        ("espressos", 967),
        ("black-and-tan_coonhound", 165),
        ("crayfish", 124),  # the first name of one label, another name of another's
        ("maillot", 638),  # a whole label, and the first name of another
    ],
)
def test_a_class_has_many_names(name: str, index: int) -> None:
    found = truths([name], IMAGENET)
    label = IMAGENET[index]
    truth = found.known[name]
    assert (truth.indices, truth.index, truth.wnid, truth.label) == (frozenset({index}), index, label.wnid, label.text)


def test_what_a_name_may_mean_besides_is_said() -> None:
    found = truths(["tabby", "maillot", "crayfish", "amphibian", "maillot, tank suit"], IMAGENET)
    assert found.remarks == (
        "maillot: 638 maillot (n03710637); also 639 maillot, tank suit (n03710721)",
        "crayfish: 124 crayfish, crawfish, crawdad, crawdaddy (n01985128); also "
        "123 spiny lobster, langouste, rock lobster, crawfish, crayfish, sea crawfish (n01984695)",
        "amphibian: 408 amphibian, amphibious vehicle (n02704792); also amphibian (n01627424)",
    )


def test_a_concept_is_right_by_any_class_under_it() -> None:
    found = truths(["dogs", "hunting-dog", "n02084071", "cat"], IMAGENET)
    assert len(found.known["dogs"].indices) == 118
    assert found.known["dogs"] == found.known["n02084071"]
    assert (found.known["dogs"].label, found.known["dogs"].index) == ("dog", None)
    assert found.known["hunting-dog"].indices < found.known["dogs"].indices
    assert found.remarks == (
        "cat: cat, true cat, a kind of feline (n02121620, 7 classes); "
        "also big cat, a kind of feline (n02127808, 6 classes)",
    )


def test_a_name_of_several_classes_is_not_guessed_and_one_of_none_gets_the_nearest() -> None:
    found = truths(["crane", "tabbi", "zzzz", "1000", "tabby"], IMAGENET)
    assert [*found.known] == ["tabby"]
    assert found.unknown == ("crane", "tabbi", "zzzz", "1000")
    with pytest.raises(UsageError) as raised:
        found.check("tiny")
    assert raised.value.message == "4 of 5 names are no class of tiny"
    assert raised.value.hint.splitlines() == [
        "crane: it may be 134 crane (n02012849) or 517 crane (n03126707): name it by its index or WordNet id",
        "tabbi: nothing is called that. The nearest: 281 tabby, tabby cat (n02123045)",
        "zzzz: nothing is called that.",
        "1000: nothing is called that.",
    ]
    with pytest.raises(UsageError, match="7 of 7 names are no class") as raised:
        truths([f"unknown {number}" for number in range(7)], IMAGENET).check("tiny")
    assert raised.value.hint.splitlines()[5:] == ["and 2 more"]


def test_classes_of_ones_own_have_no_concepts_and_their_label_goes_before_an_index() -> None:
    found = truths(["ham", "spam", "cafe\u0301", "0", "1", "dog", "n02084071"], OWN)
    assert {name: truth.index for name, truth in found.known.items()} == {
        "ham": 0,
        "spam": 1,
        "cafe\u0301": 2,
        "0": 3,
        "1": 1,
    }
    assert found.unknown == ("dog", "n02084071")
    assert truths(["hamm"], OWN).reasons == ("hamm: nothing is called that. The nearest: 0 ham",)

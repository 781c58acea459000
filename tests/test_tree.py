"""`hiera labels` with concepts, and `--tree`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Call, in_a_terminal

from hiera_cli import wordnet
from hiera_cli.checkpoints.labels import imagenet_labels, matching
from hiera_cli.commands.tree import drawn, tabbed
from hiera_cli.system.terminal import cells

LABELS = imagenet_labels()
CATS = (
    "hiera: cat: cat, true cat, a kind of feline (n02121620, 7 classes); "
    "also big cat, a kind of feline (n02127808, 6 classes)\n"
)


def test_the_classes_under_a_concept_are_listed_with_the_labels_that_have_the_word(call: Call) -> None:
    done = call("labels", "cat")
    rows = [line.split("\t") for line in done.out.splitlines()]
    # Lynx and cougar have no such word; lesser panda (cat bear) is no cat; behind them are parts of words.
    first, rest = [281, 282, 283, 284, 285, 286, 287, 383, 387], [30, 89, 143, 358, 361, 484, 688]
    assert [int(row[0]) for row in rows] == first + rest
    assert done.err == CATS
    assert [row["index"] for row in json.loads(call("labels", "cat", "--json").out)] == [int(row[0]) for row in rows]


@pytest.mark.parametrize("query", [["dog"], ["n02084071"], ["N02084071"], ["domestic", "dog"], ["Canis  familiaris"]])
def test_a_concept_is_named_by_word_phrase_or_id(call: Call, query: list[str]) -> None:
    done = call("labels", *query)
    listed = [int(line.split("\t")[0]) for line in done.out.splitlines()]
    assert {*wordnet.indices("n02084071", LABELS)} <= {*listed}
    assert len(listed) == len({*listed})
    assert done.err == ""


def test_of_several_meanings_nothing_is_said_where_the_classes_of_all_are_listed(call: Call) -> None:
    done = call("labels", "crane")
    assert (done.out, done.err) == ("134\tn02012849\tcrane\n517\tn03126707\tcrane\n", "")
    assert call("labels", "--tree", "crane").err == (
        "hiera: crane: crane, a kind of wading bird (n02012849, 1 class); "
        "also crane, a kind of lifting device (n03126707, 1 class)\n"
    )


def test_a_class_is_listed_once_in_the_order_of_classes() -> None:
    dogs = wordnet.classes()["n02084071"]
    whole = [label.index for label in matching(LABELS, "dog", dogs)]
    first = whole[: whole.index(max(wordnet.indices("n02084071", LABELS))) + 1]
    assert first == sorted(first)
    assert len(whole) == len({*whole})


def test_a_word_that_nothing_has_gets_the_nearest(call: Call) -> None:
    done = call("labels", "dgo")
    assert (done.status, done.out) == (1, "")
    assert done.err == "hiera: no label matches 'dgo'. The nearest words: dog, dingo, dugong.\n"


CAT_TREE = """\
-	n02121620	cat	7
-	n02121808	  domestic cat	5
285	n02124075	    Egyptian cat
283	n02123394	    Persian cat
284	n02123597	    Siamese cat, Siamese
281	n02123045	    tabby, tabby cat
282	n02123159	    tiger cat
-	n02124623	  wildcat	2
286	n02125311	    cougar, puma, catamount, mountain lion, painter, panther, Felis concolor
287	n02127052	    lynx, catamount
"""


def test_a_tree_in_a_pipe_is_indented_behind_index_and_id(call: Call) -> None:
    done = call("labels", "--tree", "cat")
    assert (done.status, done.out, done.err) == (0, CAT_TREE, CATS)


def test_a_tree_as_json_is_nested(call: Call) -> None:
    done = call("labels", "--tree", "domestic", "cat", "--json")
    tree = json.loads(done.out)
    kinds = tree.pop("kinds")
    names = ["domestic cat", "house cat", "Felis domesticus", "Felis catus"]
    assert tree == {"wnid": "n02121808", "names": names, "index": None, "classes": 5}
    assert [kind["index"] for kind in kinds] == [285, 283, 284, 281, 282]
    assert kinds[0] == {"wnid": "n02124075", "names": ["Egyptian cat"], "index": 285, "classes": 1, "kinds": []}


def indices(tree: dict[str, Any]) -> Iterable[int]:
    if tree["index"] is not None:
        yield tree["index"]
    for kind in tree["kinds"]:
        yield from indices(kind)


def test_the_whole_tree_has_every_class(call: Call) -> None:
    done = call("labels", "--tree")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert rows[0] == ["-", "n00001740", "entity", "1000"]
    assert {row[0] for row in rows} == {"-", *map(str, range(1000))}
    assert {row[1] for row in rows} == {*wordnet.synsets()}
    assert {*indices(json.loads(call("labels", "--tree", "--json").out))} == {*range(1000)}


def test_what_is_a_kind_of_two_is_drawn_under_both_and_what_is_below_it_once() -> None:
    twice = [row for row in wordnet.rows("n00001740", LABELS) if row.again]
    assert len(twice) == 39
    lines = [*tabbed(wordnet.rows("n00001740", LABELS))]
    (first, again) = [place for place, line in enumerate(lines) if line.split("\t")[1] == twice[0].synset.wnid]
    depth = len(twice[0].lasts)
    assert lines[again].endswith(f"\t{twice[0].classes} see above")
    assert not lines[again + 1].split("\t")[2].startswith("  " * (depth + 1))
    assert not lines[first].endswith("see above")


def test_a_tree_in_a_narrow_terminal_stays_readable() -> None:
    lines = [*drawn(wordnet.rows("n02121620", LABELS), 40)]
    assert lines == [
        "cat (7)",
        "├ domestic cat (5)",
        "│ ├ Egyptian cat [285]",
        "│ ├ Persian cat [283]",
        "│ ├ Siamese cat, Siamese [284]",
        "│ ├ tabby, tabby cat [281]",
        "│ └ tiger cat [282]",
        "└ wildcat (2)",
        "  ├ cougar, puma, catamount, mountain",
        "  │ lion, painter, panther, Felis",
        "  │ concolor [286]",
        "  └ lynx, catamount [287]",
    ]
    assert [*drawn(wordnet.rows("n02124623", LABELS), None, unicode=False)] == [
        "wildcat (2)",
        "|-cougar, puma, catamount, mountain lion, painter, panther, Felis concolor [286]",
        "`-lynx, catamount [287]",
    ]
    whole = [*drawn(wordnet.rows("n00001740", LABELS), 60)]
    assert max(map(cells, whole)) == 60
    assert len(whole) < 1.2 * 2000


def test_a_tree_on_a_terminal_is_drawn(environment: dict[str, str]) -> None:
    assert in_a_terminal(environment, "labels", "--tree", "wildcat", size="60x20") == (
        0,
        "wildcat (2)\n"
        "├ cougar, puma, catamount, mountain lion, painter, panther,\n"
        "│ Felis concolor [286]\n"
        "└ lynx, catamount [287]\n",
    )


def test_a_tree_of_what_is_no_concept_is_nothing_found(call: Call) -> None:
    done = call("labels", "--tree", "dgo")
    assert (done.status, done.out) == (1, "")
    assert done.err == "hiera: no concept is called 'dgo'. The nearest words: dog, dingo, dugong.\n"
    assert (call("labels", "--tree", "dgo", "--json").status, call("labels", "--tree", "dgo", "--json").out) == (
        1,
        "null\n",
    )


def test_a_model_with_classes_of_its_own_has_labels_and_no_tree(call: Call, tmp_path: Path) -> None:
    from checkpoint_maker import SMALL, reference_model, save

    save(reference_model(replace(SMALL, num_classes=2), {0: "ham, a kind of cat", 1: "spam"}), tmp_path)
    assert call("labels", "-m", tmp_path, "cat").out == "0\t-\tham, a kind of cat\n"
    none = call("labels", "-m", tmp_path, "dog")
    assert (none.status, none.out, none.err) == (1, "", "hiera: no label matches 'dog'\n")
    done = call("labels", "-m", tmp_path, "--tree")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        f"hiera: error: the classes of {tmp_path} are not ImageNet's: WordNet's tree has those alone\n"
        "  Leave out what names concepts: --rollup, --among, --tree, --keywords concepts.\n"
    )

"""Results and the truths of their sources: none is mixed up, whatever a run leaves out."""

from __future__ import annotations

from hiera_cli.checkpoints.labels import imagenet_labels
from hiera_cli.evaluation.compare import FAILED, WRONG
from hiera_cli.evaluation.pairing import Pairing
from hiera_cli.evaluation.tally import Tally
from hiera_cli.evaluation.truth import truths
from hiera_cli.inputs.labelled import Labelled
from hiera_cli.inputs.source import Source
from hiera_cli.tasks.classify import Prediction
from hiera_cli.tasks.evaluate import Evaluated


def test_a_stopped_run_mixes_up_no_truths_also_of_a_path_that_comes_twice() -> None:
    names = ["tabby", "espresso", "unknown", "tripod", "tabby", "espresso"]
    paths = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "".join(["d", ".jpg"]), "e.jpg"]
    tally = Tally("demo", len(names))
    images = [Labelled(Source(path), name) for path, name in zip(paths, names, strict=True)]
    pairing = Pairing(images, truths(names, imagenet_labels()), tally)
    sources = list(pairing.sources())
    assert [source.path for source in sources] == ["a.jpg", "b.jpg", "d.jpg", "d.jpg", "e.jpg"]
    wrong = (Prediction(1, 0, None, "tench", 0.9),)
    results = [Evaluated(source.path, precision="fp32", predictions=wrong) for source in (sources[1], sources[3])]
    records = [record.to_dict() for record in pairing.evaluated(results)]
    assert [(record["path"], record["truth"]["name"]) for record in records] == [
        ("b.jpg", "espresso"),
        ("d.jpg", "tabby"),
    ]
    assert tally.outcomes == bytearray([FAILED, WRONG, FAILED, FAILED, WRONG, FAILED])
    assert pairing.unknown == 1

"""What `hiera models`, `info` and `bench` show a person, from records that are the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiera_cli.bench import Choice, Measured, Rate, Speed
from hiera_cli.checkpoints.inventory import CachedModel, ModelEntry
from hiera_cli.commands.info_facts import CompiledModel, Info
from hiera_cli.commands.tables import bench_table, info_lines, models_table

MODELS = [
    ModelEntry("tiny", "facebook/hiera-tiny", 27_910_216, 111_640_864, 82.8, "CC BY-NC 4.0", on_this_machine=False),
    ModelEntry("huge", "facebook/hiera-huge", 672_779_752, 2_691_119_008, 86.9, "CC BY-NC 4.0", on_this_machine=True),
    ModelEntry("demo", None, 412_345, 824_690, None, "Apache-2.0", on_this_machine=True),
]


def test_the_table_of_models_has_a_line_a_model() -> None:
    assert models_table(MODELS, None) == [
        "NAME       PARAMETERS   DOWNLOAD   TOP-1  HERE      REPOSITORY",
        "tiny           27.9 M     112 MB  82.8 %  no        facebook/hiera-tiny",
        "huge          672.8 M   2,691 MB  86.9 %  yes       facebook/hiera-huge",
        "demo            0.4 M          –       –  built in  knows the sample images alone",
        "",
        "Licence of the weights: CC BY-NC 4.0 (non-commercial use). TOP-1: ImageNet-1K, as published.",
    ]
    assert models_table(MODELS, 93) == models_table(MODELS, None)


def test_in_a_narrow_terminal_each_repository_stands_under_its_model() -> None:
    assert "\n".join(models_table(MODELS[:1], 60)) == (
        "NAME       PARAMETERS   DOWNLOAD   TOP-1  HERE    \n"
        "tiny           27.9 M     112 MB  82.8 %  no      \n"
        "    facebook/hiera-tiny\n"
        "\n"
        "Licence of the weights: CC BY-NC 4.0 (non-commercial use).\n"
        "TOP-1: ImageNet-1K, as published."
    )


INFO = Info(
    versions={"hiera": "0.1.0", "openvino": "not installed"},
    device="cpu",
    device_why="no CUDA and no MPS on this machine",
    engine="torch",
    engine_why="as asked",
    precision="fp32",
    precision_why="as asked",
    processors=2,
    cache="/home/me/hub",
    cached=(CachedModel("tiny", "facebook/hiera-tiny", 111_640_864),),
    compiled_folder="/home/me/compiled",
    compiled=(CompiledModel("tiny-bf16", 56_000_000), CompiledModel("demo-fp32", 900_000)),
)


def test_info_has_a_line_a_fact() -> None:
    assert info_lines(INFO, None) == [
        "hiera            0.1.0",
        "openvino         not installed",
        "",
        "device           cpu (no CUDA and no MPS on this machine)",
        "precision        fp32 (as asked)",
        "engine           torch (as asked)",
        "processors       2",
        "",
        "cache            /home/me/hub",
        "                 tiny (facebook/hiera-tiny, 112 MB)",
        "",
        "compiled         /home/me/compiled",
        "                 tiny-bf16 (56 MB)",
        "                 demo-fp32 (1 MB)",
    ]


def test_info_says_what_is_not_there_and_wraps_behind_its_names() -> None:
    assert info_lines(replace(INFO, versions={}, cached=(), compiled=()), 44) == [
        "",
        "device           cpu (no CUDA and no MPS on",
        "                 this machine)",
        "precision        fp32 (as asked)",
        "engine           torch (as asked)",
        "processors       2",
        "",
        "cache            /home/me/hub",
        "                 no weights yet:",
        "                 `hiera download` fetches",
        "                 them",
        "",
        "compiled         /home/me/compiled",
        "                 none: the openvino engine",
        "                 keeps its compiled models",
        "                 there",
    ]


FP32, BF16 = Choice("torch", "cpu", "fp32"), Choice("openvino", "cpu", "bf16")
MEASURED = Measured(
    model="tiny",
    rounds=5,
    rates=(
        Rate("torch", "cpu", "fp32", 1, Speed(9.5, 9.4, 9.6), None),
        Rate("openvino", "cpu", "bf16", 8, Speed(1204.5, 1100, 1300), Speed(40, 38, 42)),
    ),
    too_busy=False,
    fastest=(BF16,),
    recommended=BF16,
)


def test_the_table_of_bench_ends_with_the_fastest() -> None:
    assert bench_table(MEASURED, 80) == [
        "ENGINE    PRECISION BATCH      MODEL ALONE       END TO END",
        "torch     fp32          1       9.5/s ± 1%                –",
        "openvino  bf16          8   1,204.5/s ± 8%      40.0/s ± 5%",
        "",
        "tiny on cpu, images a second: the median of 5 rounds, and half of what lies",
        "between the slowest and the fastest.",
        "The fastest end to end: --engine openvino --precision bf16",
    ]


@pytest.mark.parametrize(
    ("measured", "advice"),
    [
        (
            replace(MEASURED, fastest=(BF16, FP32)),
            "The fastest end to end, and alike: --engine openvino --precision bf16, --engine torch --precision fp32",
        ),
        (
            replace(MEASURED, too_busy=True),
            "The machine was too busy to tell which is the fastest: try again when nothing else runs.",
        ),
    ],
)
def test_bench_recommends_nothing_that_it_cannot_tell(measured: Measured, advice: str) -> None:
    assert bench_table(measured, None)[-1] == advice

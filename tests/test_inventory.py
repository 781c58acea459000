"""What is known of the models that were published, and that nothing below the commands speaks of options."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest
import torch
from conftest import ROOT, Call

from hiera_cli.checkpoints import inventory
from hiera_cli.checkpoints.inventory import ModelEntry
from hiera_cli.checkpoints.published import LICENCE, PUBLISHED
from hiera_cli.commands.remedies import REMEDIES


@pytest.fixture(autouse=True)
def _empty_cache(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", environment["HF_HOME"])


def test_models_prints_the_entries_key_for_key(call: Call) -> None:
    entries = inventory.models()
    assert entries[0] == ModelEntry(
        "tiny", "facebook/hiera-tiny-224-in1k-hf", 27_910_216, 111_640_864, 82.8, LICENCE, False
    )
    assert (entries[-1].name, entries[-1].repository, entries[-1].on_this_machine) == ("demo", None, True)
    entries += inventory.models("autoencoder")
    assert json.loads(call("models", "--json").out) == [asdict(entry) for entry in entries]


def test_the_masked_autoencoders_are_listed_by_the_names_of_their_sizes() -> None:
    entries = inventory.models("autoencoder")
    assert [entry.name for entry in entries] == list(PUBLISHED)
    assert entries[0] == ModelEntry(
        "tiny", "facebook/hiera-tiny-224-mae-hf", 55_020_896, 220_083_584, None, LICENCE, False, "autoencoder"
    )


def test_the_masked_autoencoders_have_as_many_parameters_as_transformers_own() -> None:
    from transformers import HieraConfig, HieraForPreTraining

    for model in PUBLISHED.values():
        size = model.architecture
        config = HieraConfig(
            embed_dim=size.embed_dim,
            num_heads=list(size.num_heads),
            depths=list(size.depths),
            num_query_pool=2,
            decoder_hidden_size=512,
            decoder_depth=8,
            decoder_num_heads=16,
        )
        with torch.device("meta"):
            reference = HieraForPreTraining(config)
        assert sum(parameter.numel() for parameter in reference.parameters()) == model.mae_parameters, model.name


def test_info_prints_its_facts_key_for_key(call: Call) -> None:
    facts = json.loads(call("info", "--json", "--device", "cpu").out)
    assert list(facts) == [
        "versions",
        "device",
        "device_why",
        "engine",
        "engine_why",
        "precision",
        "precision_why",
        "processors",
        "cache",
        "cached",
        "compiled_folder",
        "compiled",
    ]
    assert (facts["cached"], facts["compiled"]) == ([], [])


def test_checkpoints_leave_options_and_commands_to_the_command_layer() -> None:
    source = "".join(file.read_text() for file in (ROOT / "hiera_cli" / "checkpoints").glob("*.py"))
    assert re.findall(r"[\s`\"(](--[a-z][\w-]*|-m\b|hiera [a-z]+ -\S*)", source) == []
    named = re.findall(r"remedy(?: = |=)\"([^\"]+)\"(?: if \w+ else \"([^\"]+)\")?", source)
    assert {name for names in named for name in names if name} <= REMEDIES.keys()
    assert {"weights", "offline", "model folder"} <= {name for names in named for name in names}

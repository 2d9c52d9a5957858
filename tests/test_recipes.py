"""The run files in examples/recipes say what they want of a machine, and it fits; no weight, no GPU."""

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="install agentrl's extra 'torch'")
pytest.importorskip("peft", reason="install agentrl's extra 'peft'")

from huggingface_hub.errors import HfHubHTTPError
from transformers import Qwen2Config

from agentrl import AgentRLError, UsageError, plugins
from agentrl.cli.dry_run import show
from agentrl.config import RunConfig, load_run_file, resolve
from agentrl.display import PlainDisplay
from agentrl.hardware import GIB, Hardware, parse
from agentrl.hub import check_reach
from agentrl.placement import Placement, place, place_here
from agentrl_tiny.tokenizer import build_tokenizer

RECIPES = Path(__file__).parents[1] / "examples" / "recipes"
# Of Qwen2.5: width, inner width, layers, heads, key heads, whether the embedding is tied.
SHAPES = {
    "3B": (2048, 11008, 36, 16, 2, True),
    "7B": (3584, 18944, 28, 28, 4, False),
    "14B": (5120, 13824, 48, 40, 8, False),
    "32B": (5120, 27648, 64, 40, 8, False),
}
MACHINES = {
    "one-gpu": "80",
    "one-node-8-gpus": "8x80",
    "four-nodes": "4x8x80",
    "appworld-loop": "80",
    "deepsearch-own-corpus": "80",
}


def model(folder: Path, size: str) -> Path:
    """Write all there is to know of a model but its weights."""
    width, inner, layers, heads, key_heads, tied = SHAPES[size]
    config = Qwen2Config(
        vocab_size=152064 if not tied else 151936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        tie_word_embeddings=tied,
        max_position_embeddings=32768,
    )
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def dry_run(recipe: str, folder: Path, machine: str, size: str | None = None, **sets: Any) -> str:
    """Return what a dry run prints of a recipe with a model of the size that it names, or another."""
    printed = StringIO()
    show(configured(recipe, folder, size, **sets), parse(machine), Console(file=printed, width=160))
    return printed.getvalue()


def configured(recipe: str, folder: Path, size: str | None = None, **sets: Any) -> RunConfig:
    """Return the configuration of a recipe, see `dry_run`."""
    document = load_run_file(RECIPES / f"{recipe}.yaml")
    named = re.search(r"-(\d+B)-", str(document["model"]))
    assert named
    flags = {"model": str(model(folder, size or named[1])), "device": "cuda"}
    return resolve(document, flags, [f"{key}={value}" for key, value in sets.items()])


def begun(placement: Placement) -> str:
    """Return what a run writes when it begins."""
    console = Console(file=StringIO(), width=160)
    PlainDisplay(console, console).placed(placement)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_every_recipe_is_tried() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == MACHINES.keys()


@pytest.mark.parametrize("recipe", MACHINES)
def test_a_recipe_fits_the_machine_that_it_is_for(recipe: str, tmp_path: Path) -> None:
    if recipe == "four-nodes" and "ray" not in plugins.names("runtime"):
        pytest.skip("there is no runtime 'ray'")
    printed = dry_run(recipe, tmp_path, MACHINES[recipe])
    assert "fits" in printed
    assert "too much" not in printed
    assert "estimated for micro-batches of" in printed
    assert "trainer" in printed
    assert "envs: " in printed


def test_the_documented_dry_run_ends_as_it_does(tmp_path: Path) -> None:
    printed = [line.rstrip() for line in dry_run("one-gpu", tmp_path, "80").splitlines()]
    page = (RECIPES.parents[1] / "docs" / "how-a-run-works.md").read_text()
    documented = re.search(
        r"--dry-run --gpus 80` ends in:\n\n```\n(.*?)\n```", page.replace("\n--dry", " --dry"), re.DOTALL
    )
    assert documented
    lines = documented[1].splitlines()
    assert printed[-len(lines) :] == lines


def test_ranks_and_engines_sit_on_all_gpus(tmp_path: Path) -> None:
    printed = dry_run("one-node-8-gpus", tmp_path, "8x80")
    assert re.search(r"trainer, rank 0 to 7 +its own +cuda:0 to cuda:7", printed)
    assert re.search(r"engine 0 to 7 +its own +cuda:0 to cuda:7", printed)


def test_engines_that_are_not_colocated_sit_on_gpus_of_their_own(tmp_path: Path) -> None:
    apart = {"runtime": "ray", "runtime.colocate": "false"}
    printed = dry_run("one-node-8-gpus", tmp_path, "16x80", **apart)
    assert re.search(r"trainer, rank 0 to 7 +its own +cuda:0 to cuda:7", printed)
    assert re.search(r"engine 0 to 7 +its own +cuda:8 to cuda:15", printed)
    assert "engine N on GPUs of its own" in printed
    with pytest.raises(AgentRLError, match="the run wants cuda:8, and there is none"):
        dry_run("one-node-8-gpus", tmp_path, "8x80", **apart)


def test_every_machine_of_several_has_one_file_of_weights_for_all_its_engines(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="install agentrl's extra 'ray'")
    found = place(configured("four-nodes", tmp_path), parse("4x8x80"))

    def files(machine: int, what: str) -> list[int]:
        (load,) = (one for one in found.loads[f"cpu, machine {machine}"] if one.moment == "handing over")
        return [each.bytes for _, holdings in load.held for each in holdings if each.what == what]

    (size,) = files(1, "new weights")
    assert size > 14 * 10**9 * 2
    for machine in range(1, 5):
        assert files(machine, "a file of weights") == files(machine, "the file of new weights") == [size]


def test_what_is_too_large_is_refused_with_the_options_that_help(tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match=r"cuda:0 would have to hold \d+\.\d GiB while handing"):
        dry_run("one-node-8-gpus", tmp_path, "8x80", size="32B")
    more = {"trainer.gradient_checkpointing": "false", "trainer.micro_batch_tokens": 65536}
    with pytest.raises(AgentRLError, match="while learning") as refused:
        dry_run("one-gpu", tmp_path, "24", **more)
    assert "trainer.gradient_checkpointing=true" in str(refused.value)
    assert "trainer.micro_batch_tokens" in str(refused.value)


def test_a_run_that_begins_says_what_sits_where_and_warns_of_what_does_not_fit(tmp_path: Path) -> None:
    config = configured("one-node-8-gpus", tmp_path)
    printed = begun(place(config, parse("8x80")))
    assert re.search(r"trainer, rank 0 to 7 +its own +cuda:0 to cuda:7", printed)
    assert re.search(
        r"cuda:0 to cuda:7 is to hold up to \d+\.\d+ of 80.0 GiB, the most while [a-z ]+\n", printed
    )
    assert "warning" not in printed
    assert re.search(
        r"warning: cuda:0 would have to hold .*what saves memory", begun(place(config, parse("8x24")))
    )


def test_of_other_machines_a_run_that_begins_does_not_say_that_they_lack_anything(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="install agentrl's extra 'ray'")
    printed = begun(place_here(configured("four-nodes", tmp_path)))
    assert "cuda:31" in printed
    assert "warning" not in printed


def test_a_described_machine_with_too_little_main_memory_is_refused(tmp_path: Path) -> None:
    config = configured("one-node-8-gpus", tmp_path)
    with pytest.raises(AgentRLError, match=r"main memory would have to hold .* GiB while .* and has 40\.0"):
        show(config, parse("8x80", 40), Console(file=StringIO(), width=160))


def test_a_gpu_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match="the run wants cuda:4, and there is none"):
        dry_run("one-node-8-gpus", tmp_path, "4x80")


def console() -> Console:
    return Console(file=StringIO(), width=160)


# This machine, whatever it is, without a GPU.
NO_GPU = Hardware((), 24 * GIB)


def test_who_has_no_gpu_is_asked_to_describe_the_machine_that_the_run_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.cli.dry_run.here", lambda: NO_GPU)
    config = configured("one-gpu", tmp_path)
    words = r"this machine has no GPU; describe the one that the run is for: --gpus 80 \(GB\), 8x80"
    with pytest.raises(UsageError, match=rf"asks for GPUs \(device=cuda\), and {words} or 4x8x80$"):
        show(config, None, console())
    on_cpu = config.model_copy(update={"device": "cpu"})
    with pytest.raises(AgentRLError, match=f"^{words} or 4x8x80; here main memory would have to hold"):
        show(on_cpu, None, console())
    show(config, parse("80"), console())


@pytest.mark.parametrize("recipe", MACHINES)
def test_a_hub_that_does_not_answer_is_asked_once_and_before_anything_else(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(url: str) -> None:
        asked.append(url)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    monkeypatch.setattr("agentrl.placement.place", None)
    config = resolve(load_run_file(RECIPES / f"{recipe}.yaml"), {"device": "cuda"})
    words = r"nothing is known of the model .* does not answer: Name or service not known\); give --model"
    with pytest.raises(UsageError, match=words):
        show(config, parse(MACHINES[recipe]), console())
    assert [url.rpartition("/")[2] for url in asked] == ["config.json"]


def test_a_hub_that_answers_no_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise HfHubHTTPError("who are you?", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    check_reach("nobody/nothing")


@pytest.mark.parametrize("recipe", ["one-gpu", "one-node-8-gpus"])
def test_no_hub_is_asked_for_a_model_whose_config_was_downloaded_before(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", None)
    document = load_run_file(RECIPES / f"{recipe}.yaml")
    name = str(document["model"])
    cached = tmp_path / f"models--{name.replace('/', '--')}"
    model(cached / "snapshots" / "abc", name.split("-")[1])
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    printed = console()
    show(resolve(document, {"device": "cuda"}), parse(MACHINES[recipe]), printed)
    assert isinstance(printed.file, StringIO)
    assert "fits" in printed.file.getvalue()


def test_a_dry_run_leaves_nothing_behind_and_a_real_one_takes_no_other_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agentrl", "run", "--env", "deepsearch", "--gpus", "80"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--dry-run only" in refused.stderr
    done = subprocess.run(
        [*command[:-2], "--dry-run"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "fits" in done.stdout
    assert not list(tmp_path.iterdir())

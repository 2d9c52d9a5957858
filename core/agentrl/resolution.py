"""Makes a `RunConfig` of the layers it was said in, asking the chosen plugins what they suggest and accept.

Kept apart from `config`, which only says what can be set.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from agentrl import plugins
from agentrl.config import Choice, RewardChoice, RunConfig
from agentrl.errors import PluginError, UsageError
from agentrl.files import has_tokenizer
from agentrl.hooks import hook_config
from agentrl.interfaces import Plugin
from agentrl.options import check_options, describe, nearest, suggestion
from agentrl.plugins import HOOK, SUGGESTING, import_plugin, load, option_prefix
from agentrl.settings import CHOICES, Key, Layer, Settings, parse_sets

# What may change when a run is resumed: nothing that says what is learnt, only how and for how long.
_RESUMABLE = (
    "steps",
    "checkpoints",
    "hooks",
    "runtime",
    "threads",
    "simulator.workers",
    "simulator.concurrency",
    "simulator.reset_timeout",
    "simulator.step_timeout",
    "simulator.act_timeout",
    "simulator.watchdog",
    "evaluation.audit",
    # What there is memory for, which another machine may have more or less of.
    "probe",
    "episode_tokens",
    "engine.gpu_memory",
    "engine.kv_cache_gb",
    "engine.kv_cache_tokens",
    "engine.max_batch",
    "trainer.gradient_checkpointing",
    "trainer.micro_batch_tokens",
    "trainer.ranks",
)


_NOT_SET = "not set"

_log = logging.getLogger(__name__)


def resolve(
    document: Mapping[str, Any], flags: Mapping[str, Any], sets: Sequence[str], source: str
) -> RunConfig:
    """Return the complete configuration (see `config.resolve`)."""
    said = [Layer.of(source, document), Layer.of("command line", flags), *parse_sets(sets)]
    defaults = _defaults()
    _check(Settings.of([defaults, *said]))
    settings = _with_suggestions(defaults, said)
    config = _complete(_check(settings), settings)
    config._sources.update({key: who for key, who in settings.sources().items() if who != "default"})
    _tell_unused(said, settings)
    return config


def _tell_unused(said: Sequence[Layer], settings: Settings) -> None:
    """Say whose options, though somebody wrote them, count for nothing."""
    unused = "the options of the %s %r in %s are not used, since %r is chosen"
    for layer in said:
        for kind, name in layer.names().items():
            has_options = any(key[0] == kind and key[1:] != ("name",) for key, _ in layer.entries)
            if has_options and name != settings.name(kind):
                _log.warning(unused, kind, name, layer.source, settings.name(kind))


def check_resumable(old: RunConfig, new: RunConfig) -> None:
    """Refuse to resume a run as another one.

    Raises:
        UsageError: something differs that a run cannot change on its way.
    """
    before, now = _flat(old.to_document()), _flat(new.to_document())
    names = {f"{kind}.name" for kind in CHOICES}
    for key in sorted({*before, *now}, key=lambda key: (key not in names, key)):
        if before.get(key, _NOT_SET) != now.get(key, _NOT_SET) and not key.startswith(_RESUMABLE):
            was, becomes = (repr(each[key]) if key in each else _NOT_SET for each in (before, now))
            raise UsageError(
                f"a resumed run goes on as it began: {key!r} was {was} and cannot become "
                f"{becomes}; start a new run for that (what may change: {', '.join(_RESUMABLE)})"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        key: each
        for name, below in value.items()
        for key, each in _flat(below, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _defaults() -> Layer:
    chosen = {name: RunConfig.model_fields[name].default for name in CHOICES}
    return Layer.of("default", {name: each.name for name, each in chosen.items() if isinstance(each, Choice)})


def _with_suggestions(defaults: Layer, said: Sequence[Layer]) -> Settings:
    """Return the settings with what the chosen plugins suggest between defaults and what was said."""
    suggested: list[Layer] = []
    asked: dict[str, str] = {}
    for kind in SUGGESTING:
        name = Settings.of([defaults, *suggested, *said]).name(kind)
        if name is not None and (kind != "model" or name in plugins.names("model")):
            asked[kind] = name
            suggested.append(Layer.of(f"suggested by {kind} {name!r}", load(kind, name).suggests))
    if {"env", "model"} <= asked.keys():
        who = f"suggested by env {asked['env']!r} for model {asked['model']!r}"
        suggested.append(Layer.of(who, load("env", asked["env"]).suggests_with.get(asked["model"], {})))
    settings = Settings.of([defaults, *suggested, *said])
    if "algorithm" in asked:
        suggested.append(_for_staleness(settings, load("algorithm", asked["algorithm"])))
    for kind, name in asked.items():
        if settings.name(kind) != name:
            raise PluginError(f"{settings.source(f'{kind}.name')}: comes too late to choose the {kind}")
    meant = Settings.of([defaults, *suggested])
    fitting = [_fitting(layer, (Settings.of([defaults]), meant), settings) for layer in suggested]
    return Settings.of([defaults, *fitting, *said])


def _fitting(layer: Layer, meant: Sequence[Settings], settings: Settings) -> Layer:
    """Return suggestions without those that are for whoever is chosen and that who is chosen cannot take.

    What none of those who may have been `meant` can take either is a mistake: it stays, to be told of.
    """

    def misses(key: Key) -> bool:
        kind = key[0]
        if kind not in CHOICES or kind == "env" or kind in layer.names():
            return False
        accepted = any(_accepts(kind, each.name(kind), key[1]) for each in meant)
        return accepted and not _accepts(kind, settings.name(kind), key[1])

    return layer.without({key for key, _ in layer.entries if misses(key)})


def _accepts(kind: str, name: str | None, option: str) -> bool:
    """Return whether a plugin has an option; a model that is none has no options, nor has nobody."""
    if name is None or (kind == "model" and name not in plugins.names("model")):
        return False
    return option in load(kind, name).Config.model_fields


def _for_staleness(settings: Settings, algorithm: type[Plugin]) -> Layer:
    """Return what episodes of older weights ask for where the ratio is not to the policy that sampled.

    It is to that as a rule, and so an importance weight already; where the trainer computes the
    log-probabilities before the update anew, it is not, and there has to be a weight besides.
    """
    tree = settings.tree()
    options, trainer = tree.get("algorithm", {}), tree.get("trainer", {})
    anew = (
        options.get("kl") == "reward"
        or options.get("reject_above") is not None
        or trainer.get("old_logprobs") == "recompute"
    )
    weighed = tree.get("staleness") and anew and "correction" in algorithm.Config.model_fields
    return Layer.of("suggested for staleness", {"algorithm.correction": "token"} if weighed else {})


def _check(settings: Settings) -> RunConfig:
    """Return the configuration with the options of plugins as they were said."""
    tree = settings.tree()
    if "env" not in tree:
        known = ", ".join(plugins.names("env")) or "none"
        raise UsageError(f"no env is chosen: name one with --env or in a run file; installed: {known}")
    for key in tree.keys() - RunConfig.model_fields.keys():
        _refuse_misplaced(key, settings)
    try:
        return RunConfig.model_validate({**tree, "agent": {**_UNCHOSEN, **tree.get("agent", {})}})
    except ValidationError as error:
        raise UsageError(describe(error, RunConfig, "a run", "", settings.source)) from error


def _refuse_misplaced(key: str, settings: Settings) -> None:
    """Refuse an option that was set without what it belongs to, such as `hops` for `env.hops`."""
    if nearest(key, RunConfig.model_fields, likeness=0.8):
        return  # a slip of the pen, rather
    for place, accepted in _accepted(settings):
        if key in accepted.model_fields:
            raise UsageError(f"a run has no option {key!r}; did you mean '{place}.{key}'?")


def _accepted(settings: Settings) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield what each part of the configuration accepts, as far as its plugin is there."""
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.default, BaseModel) and name not in CHOICES:
            yield name, type(field.default)
    for kind in CHOICES:
        try:
            yield kind, load(kind, settings.name(kind) or "").Config
        except PluginError:  # this is about another mistake
            continue


# Stands in for the agent until the env's suggestions are known.
_UNCHOSEN = {"name": ""}


def _complete(config: RunConfig, settings: Settings) -> RunConfig:
    """Return the configuration with all options of all plugins, checked."""
    if not config.agent.name:
        known = ", ".join(plugins.names("agent"))
        env = config.env.name
        raise UsageError(
            f"no agent is chosen, and the env {env!r} suggests none; add --agent; installed: {known}"
        )
    if not config.rewards:
        raise UsageError(
            "no reward is chosen, and the env suggests none; add --reward, such as --reward success"
        )
    _refuse_unchosen_rewards(settings)
    _refuse_held_out(config)
    choices = {kind: _complete_choice(kind, getattr(config, kind), settings) for kind in CHOICES}
    rewards = {name: _complete_reward(name, each, settings) for name, each in config.rewards.items()}
    hooks = {name: _hook_options(name, options, settings) for name, options in config.hooks.items()}
    return config.model_copy(update={**choices, "rewards": rewards, "hooks": hooks})


def _refuse_unchosen_rewards(settings: Settings) -> None:
    """Refuse options of a reward that nobody chose."""
    for name, reward in settings.tree()["rewards"].items():
        if "weight" not in reward:
            option = next(iter(reward))
            raise UsageError(
                f"'rewards.{name}.{option}' is set, and the reward {name!r} is not chosen: "
                f"add --reward {name} or --set rewards.{name}=WEIGHT"
            )


def _refuse_held_out(config: RunConfig) -> None:
    """Refuse to train on what the env holds out.

    Raises:
        UsageError: the training split is one of those.
    """
    held_out = load("env", config.env.name).held_out_splits
    if config.train_split in held_out:
        raise UsageError(
            f"the env {config.env.name!r} holds the split {config.train_split!r} out: it may be measured on, "
            "and never trained on; choose another train_split"
        )


def _complete_choice(kind: str, choice: Choice, settings: Settings) -> Choice:
    if kind == "model" and choice.name not in plugins.names("model"):
        return _outside_model(choice)
    return Choice(name=choice.name, options=_options(kind, choice.name, choice.options, settings))


def _outside_model(choice: Choice) -> Choice:
    """Return the choice of a model folder or of a name on the hub.

    Raises:
        UsageError: it is neither, or it has options, or the folder holds no model.
    """
    name, path = choice.name, Path(choice.name)
    if choice.options:
        raise UsageError(f"the model {name!r} is not a plugin, so it takes no options")
    if path.is_dir():
        _check_model_folder(path)
        return Choice(name=str(path.absolute()))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return choice
    known = plugins.names("model")
    hint = suggestion(name, known, what="installed")
    raise UsageError(f"no model {name!r}: give a model directory, a hub name or a model plugin; {hint}")


def _check_model_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise UsageError(f"{path} is not a model directory: it has no config.json")
    if not has_tokenizer(path):
        raise UsageError(f"the model directory {path} has no tokenizer; save the tokenizer beside the model")


def _complete_reward(name: str, choice: RewardChoice, settings: Settings) -> RewardChoice:
    return RewardChoice(weight=choice.weight, options=_options("reward", name, choice.options, settings))


def _options(kind: str, name: str, options: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    plugin = load(kind, name)
    prefix = option_prefix(kind, name)
    return _plain(check_options(plugin.Config, options, f"{kind} {name!r}", prefix, settings.source))


def _hook_options(name: str, options: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return _plain(hook_config(name, import_plugin(HOOK, name), options, settings.source))


def _plain(config: BaseModel) -> dict[str, Any]:
    """Return options as plain data that a run file can say, wherever it is read."""
    plain: dict[str, Any] = to_jsonable_python(_absolute(config.model_dump()))
    return plain


def _absolute(value: Any) -> Any:
    """Return a value with the paths in it absolute, if something is there."""
    if isinstance(value, Path):
        return str(value.absolute()) if value.exists() else str(value)
    if isinstance(value, Mapping):
        return {key: _absolute(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_absolute(each) for each in value]
    return value

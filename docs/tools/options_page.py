"""Writes docs/options.md: what can be set of a run, and of each plugin that comes with the core."""

from collections.abc import Iterator
from pathlib import Path

from markdown_text import code, escaped, table

from agentrl.cli.describe import Option, describe, options_of
from agentrl.config import RunConfig
from agentrl.discovery import CORE, KINDS, PluginInfo, list_plugins
from agentrl.plugins import load
from agentrl.policy_gradient import PolicyGradient
from agentrl.settings import CHOICES

INTRODUCTION = """\
# Options

Written from the code by `python docs/tools`; a test fails when it is out of date.

Everything here is set by `--set KEY=VALUE` or in a run file. What is set on the command line wins over the
run file, and that over what env, algorithm, model, agent and trainer suggest. `agentrl plugins NAME` shows
the options of whatever is installed, plugins of others included.

Options that stand beside the name of a plugin are for that plugin: where another one is chosen on the command
line, they are not used, and the run says so. The `run.yaml` of a run says everything, what was suggested then
included: to try another env or model, begin with a run file that says less."""
HEAD = ("key", "value", "default", "what it is")
CLIPPED = "The clipped loss"


def page() -> str:
    """Return the whole page."""
    return "\n\n".join([INTRODUCTION, *of_runs(), *of_plugins()]) + "\n"


def of_runs() -> Iterator[str]:
    """Yield the section on what is no plugin's."""
    yield "## Of a run"
    yield table(
        HEAD,
        [_choice(kind) for kind in CHOICES] + [_rewards(), _hooks()] + [row(each) for each in run_options()],
    )


def run_options() -> list[Option]:
    """Return the options of a run that choose no plugin."""
    others = {*CHOICES, "rewards", "hooks"}
    found = [(option.key.removeprefix("."), option) for option in options_of(RunConfig, "")]
    return [
        Option(key, option.type, option.default, option.description)
        for key, option in found
        if key.partition(".")[0] not in others
    ]


def _choice(kind: str) -> list[str]:
    field = RunConfig.model_fields[kind]
    default = "(the env suggests one)" if kind == "agent" else "(required)"
    named = default if field.is_required() else code(field.default.name)
    what = "a hub name or a folder, too" if kind == "model" else "by name"
    return [
        code(kind),
        f"name of a plugin, of kind {kind}",
        named,
        f"{what}; `{kind}.OPTION` sets its options",
    ]


def _rewards() -> list[str]:
    what = "the weight of a reward, 0 to measure only, null to leave it out"
    return [
        code("rewards.NAME"),
        "number",
        "(the env suggests some)",
        f"{what}; `rewards.NAME.OPTION` sets its options",
    ]


def _hooks() -> list[str]:
    return [code("hooks.NAME.OPTION"), "", "", "an option of a hook plugin"]


def row(option: Option) -> list[str]:
    """Return an option as a row of a table."""
    values = escaped(option.type).replace(" | ", " or ")
    return [code(option.key), values, code(_home(option.default)), escaped(option.description)]


def _home(default: str) -> str:
    return default.replace(str(Path.home()), "~")


def of_plugins() -> Iterator[str]:
    """Yield a section for each kind."""
    for kind in KINDS:
        yield f"## Of {'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        if kind == "algorithm":
            yield f"### {CLIPPED}"
            yield "What most algorithms build on: `agentrl.PolicyGradient`. Other defaults stand with them."
            yield table(HEAD, [row(option) for option in clipped_options()])
        for info in list_plugins(kind):
            if info.distribution == CORE:
                yield from of_plugin(info)


def clipped_options() -> list[Option]:
    """Return the options that algorithms with a clipped loss share."""
    return options_of(PolicyGradient.Config, "algorithm")


def of_plugin(info: PluginInfo) -> Iterator[str]:
    """Yield what a plugin is and what it lets be set."""
    plugin = describe(info)
    yield f"### {info.kind} `{info.name}`"
    yield escaped(plugin.summary)
    options = plugin.options
    if info.kind == "algorithm" and issubclass(load("algorithm", info.name), PolicyGradient):
        options = [option for option in options if option not in clipped_options()]
        yield "Options of the [clipped loss](#the-clipped-loss)" + (", and:" if options else " only.")
    elif not options:
        yield "No options."
    if options:
        yield table(HEAD, [row(option) for option in options])

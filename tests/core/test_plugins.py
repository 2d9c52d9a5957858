import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrl import Env, PluginError, UsageError
from agentrl.discovery import list_plugins
from agentrl.plugins import import_plugin, load, make, names

Install = Callable[..., Path]
ENVS, REWARDS = "agentrl.envs", "agentrl.rewards"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_listing_says_who_provides_a_plugin_and_imports_none(install: Install) -> None:
    install(
        "shop",
        {ENVS: {"shop": "shop_env:Shop"}},
        modules={"shop_env": "raise SystemExit('imported')"},
        version="2.5",
    )
    info = next(info for info in list_plugins("env") if info.name == "shop")
    assert (info.distribution, info.version, info.target) == ("shop", "2.5", "shop_env:Shop")
    assert "shop_env" not in sys.modules
    heavy = """
import sys, agentrl.discovery
agentrl.discovery.list_plugins()
print([name for name in sys.modules if name.startswith(("agentrl_", "shop", "torch", "numpy"))])
"""
    assert python(heavy).strip() == "[]"


def test_import_agentrl_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "transformers", "rich", "stevedore", "typer", "yaml"}
    assert python(f"import sys, agentrl; print(sorted({heavy!r} & set(sys.modules)))").strip() == "[]"


def test_a_plugin_is_loaded_by_name_with_its_type(toys: Path) -> None:
    assert load("env", "toy").__name__ == "ToyEnv"
    env = make("env", "toy", {"doors": 3})
    assert isinstance(env, Env)
    assert env.config.doors == 3
    assert {"other", "toy"} <= set(names("trainer"))


def test_a_plugin_installed_a_moment_ago_is_found(install: Install) -> None:
    with pytest.raises(PluginError):
        load("reward", "late")
    module = (
        "from agentrl import Reward\nclass Late(Reward):\n    async def score(self, trajectory): return 0.0\n"
    )
    install("late", {REWARDS: {"late": "late_reward:Late"}}, modules={"late_reward": module})
    assert load("reward", "late").__name__ == "Late"


def test_a_missing_plugin_suggests_the_nearest_and_lists_the_installed(toys: Path) -> None:
    with pytest.raises(PluginError, match=r"no env 'toi'; did you mean 'toy'\? installed: .*toy"):
        load("env", "toi")
    with pytest.raises(
        PluginError, match=r"no engine 'other'; 'other' is the name of a plugin of another kind: trainer"
    ):
        load("engine", "other")


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("first", {ENVS: {"shop": "one:Env"}}, modules={})
    install("second", {ENVS: {"shop": "two:Env"}}, modules={}, version="3.0")
    with pytest.raises(PluginError, match=r"first 1.0 \(one:Env\)") as caught:
        load("env", "shop")
    assert "second 3.0 (two:Env)" in str(caught.value)


def test_two_distributions_that_name_the_same_target_are_still_two(install: Install) -> None:
    install("first", {ENVS: {"shop": "one:Env"}}, modules={})
    install("fork", {ENVS: {"shop": "one:Env"}}, modules={})
    with pytest.raises(PluginError, match=r"first 1.0 .* and fork 1.0|fork 1.0 .* and first 1.0"):
        load("env", "shop")


@pytest.mark.parametrize(
    "failure",
    ["raise RuntimeError('no licence')", "import sys; sys.exit('no licence')", "assert False, 'no licence'"],
)
def test_a_broken_plugin_is_named_with_its_distribution_and_cause(install: Install, failure: str) -> None:
    install("shop", {ENVS: {"shop": "broken_env:Shop"}}, modules={"broken_env": failure})
    with pytest.raises(
        PluginError, match=r"the env 'shop' of shop 1.0 could not be imported: .*no licence"
    ) as caught:
        load("env", "shop")
    assert caught.value.__cause__ is not None


def test_a_missing_optional_dependency_names_the_extra_that_brings_it(install: Install) -> None:
    requires = ["fancy-graphs>=2; extra == 'graphs'", "other; extra == 'all'"]
    install(
        "shop",
        {ENVS: {"shop": "needy:Shop"}},
        modules={"needy": "import fancy_graphs.core"},
        requires=requires,
    )
    with pytest.raises(
        PluginError, match=r"No module named 'fancy_graphs'; install it with: pip install 'shop\[graphs\]'"
    ):
        load("env", "shop")


def test_a_missing_dependency_without_an_extra_and_a_missing_own_module_say_so(install: Install) -> None:
    install(
        "shop",
        {ENVS: {"shop": "needy:Shop", "gone": "gone_module:Gone"}},
        modules={"needy": "import nowhere_to_be_found"},
    )
    with pytest.raises(PluginError, match=r"install what provides the module 'nowhere_to_be_found'"):
        load("env", "shop")
    with pytest.raises(PluginError, match=r"its files are missing, so install shop again"):
        load("env", "gone")


def test_a_missing_attribute_is_reported(install: Install) -> None:
    install("shop", {ENVS: {"shop": "empty_env:Shop"}}, modules={"empty_env": ""})
    with pytest.raises(PluginError, match=r"has no attribute 'Shop'"):
        load("env", "shop")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("Score", "is not a subclass of agentrl.Env"),
        ("number", "is not a subclass of agentrl.Env"),
        ("Half", "does not define judge, reset, step"),
        ("Odd", "has a Config that is not a subclass of agentrl.PluginConfig"),
    ],
)
def test_a_plugin_of_the_wrong_kind_is_refused(install: Install, target: str, problem: str) -> None:
    module = """
from agentrl import Env, Reward
number = 3
class Score(Reward):
    async def score(self, trajectory): return 0.0
class Half(Env):
    def tasks(self, split): return []
class Odd(Env):
    Config = dict
    def tasks(self, split): return []
    async def reset(self, task, seed): ...
    async def step(self, action): ...
    async def judge(self): ...
"""
    install("shop", {ENVS: {"shop": f"wrong_kind:{target}"}}, modules={"wrong_kind": module})
    with pytest.raises(
        PluginError, match=rf"the env 'shop' of shop 1.0 cannot be used: wrong_kind:{target} {problem}"
    ):
        load("env", "shop")


def test_suggestions_of_a_kind_whose_suggestions_nobody_hears_are_refused(install: Install) -> None:
    module = """
from agentrl import Reward
class Score(Reward):
    suggests = {"steps": 3}
    async def score(self, trajectory): return 0.0
"""
    install("shop", {"agentrl.rewards": {"shop": "loud:Score"}}, modules={"loud": module})
    with pytest.raises(PluginError, match="loud:Score has suggestions, which nobody would hear"):
        load("reward", "shop")


def test_a_disabled_plugin_is_listed_but_not_loaded(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRL_DISABLE_PLUGINS", "something, toy")
    assert [info.disabled for info in list_plugins("env") if info.name == "toy"] == [True]
    with pytest.raises(PluginError, match=r"disabled by AGENTRL_DISABLE_PLUGINS"):
        load("env", "toy")


def test_a_plugin_for_another_core_is_refused_before_it_is_imported(install: Install) -> None:
    install(
        "shop",
        {ENVS: {"shop": "future_env:Shop"}},
        modules={"future_env": "raise SystemExit"},
        requires=["Agentrl.Platform>=99"],
    )
    with pytest.raises(
        PluginError, match=r"the env 'shop' of shop 1.0 needs agentrl-platform >=99, but this is 0"
    ):
        import_plugin("env", "shop")
    assert "future_env" not in sys.modules


def test_an_extra_of_the_core_or_a_broken_requirement_is_no_core_version(
    install: Install, toys: Path
) -> None:
    module = "from toy_plugins import ToyEnv"
    requires = ["agentrl-platform[torch]>=99; extra == 'big'", "this is ((not a requirement"]
    install("shop", {ENVS: {"shop": "fine_env:ToyEnv"}}, modules={"fine_env": module}, requires=requires)
    assert load("env", "shop").__name__ == "ToyEnv"


def test_wrong_options_are_explained(toys: Path) -> None:
    with pytest.raises(UsageError, match=r"env 'toy' has no option 'env.door'; did you mean 'env.doors'\?"):
        make("env", "toy", {"door": 1})
    with pytest.raises(UsageError, match=r"'env.doors' must be a whole number, not 'many'"):
        make("env", "toy", {"doors": "many"})
    with pytest.raises(UsageError, match=r"reward 'toy' has no option 'rewards.toy.zzz'; there are: scale"):
        make("reward", "toy", {"zzz": 1})
    with pytest.raises(UsageError, match=r"engine 'toy' has no option 'engine.fast': it takes no options"):
        make("engine", "toy", {"fast": True})
    with pytest.raises(UsageError, match=r"'algorithm.clip' must be more than 0"):
        make("algorithm", "toy", {"clip": 0})
    with pytest.raises(UsageError, match=r"'env.colour' must be text, not 3"):
        make("env", "toy", {"colour": 3})


def test_a_constructor_that_fails_names_the_plugin(install: Install) -> None:
    module = """
from agentrl import Reward, UsageError
class Score(Reward):
    def __init__(self, config=None): raise KeyError("table")
    async def score(self, trajectory): return 0.0
class Polite(Score):
    def __init__(self, config=None): raise UsageError("the table is missing; make one")
"""
    install(
        "shop",
        {REWARDS: {"bad": "bad_reward:Score", "polite": "bad_reward:Polite"}},
        modules={"bad_reward": module},
    )
    with pytest.raises(
        PluginError, match=r"the reward 'bad' of shop 1.0 could not be made: KeyError: 'table'"
    ):
        make("reward", "bad", {})
    with pytest.raises(UsageError, match=r"^the table is missing; make one$"):
        make("reward", "polite", {})


def test_every_shipped_plugin_can_be_loaded() -> None:
    for info in list_plugins():
        if info.distribution == "agentrl-platform":
            import_plugin(info.kind, info.name)

"""The graph of a group, its picture, and the command that writes it."""

import json
from dataclasses import replace
from itertools import combinations, pairwise
from random import Random
from xml.etree import ElementTree

import pytest

from agentrl import Action, Group, Observation, Outcome, Task, Turn
from agentrl.cli import main
from agentrl.records import save_trajectories
from agentrl.testing import make_walk
from agentrl_salt import SALT
from agentrl_salt.graph import make_graph
from agentrl_salt.layout import LABEL_HEIGHT, NODE_HEIGHT, arrange
from agentrl_salt.page import make_page
from agentrl_salt.picture import draw

GOLDEN = ["s0 a s1 b s2 c S", "s0 a s1 b s2 d F", "s0 a s1 x s3 c S", "s0 y s4 z s1 b s2 d F"]
REWARDS = [1.0, 0.0, 1.0, 0.0]
SVG = "{http://www.w3.org/2000/svg}"


def walked(path, reward=0.0, task="t"):
    trajectory = make_walk(path, reward, task=task)
    trajectory.outcome = Outcome(reward > 0)
    return trajectory


def group(paths=GOLDEN, rewards=REWARDS, task="t"):
    pairs = zip(paths, rewards, strict=True)
    return Group(Task(task), [walked(path, reward, task) for path, reward in pairs])


def graph_of(played=None, **options):
    return make_graph(played or group(), SALT(SALT.Config(normalisation="population", epsilon=0, **options)))


def arrows(graph):
    """Return (source, action, target, advantage, visits) of each arrow, by the texts of its nodes."""
    return {
        (graph.nodes[each.source].text, each.action, graph.nodes[each.target].text): (
            round(each.advantage, 6),
            each.visits,
        )
        for each in graph.arrows
    }


# The graph


def test_the_graph_has_the_golden_advantages_on_its_arrows():
    third = round(1 / 3, 6)
    graph = graph_of()
    assert arrows(graph) == {
        ("In s0", "do a", "In s1"): (third, 3),
        ("In s1", "do b", "In s2"): (-third, 3),
        ("In s2", "do c", "In S"): (1, 1),
        ("In s2", "do d", "In F"): (-1, 2),
        ("In s1", "do x", "In s3"): (1, 1),
        ("In s3", "do c", "In S"): (1, 1),
        ("In s0", "do y", "In s4"): (-1, 1),
        ("In s4", "do z", "In s1"): (-1, 1),
    }
    columns = {node.text: node.column for node in graph.nodes}
    assert columns == {"In s0": 0, "In s1": 1, "In s4": 1, "In s2": 2, "In s3": 2, "In S": 3, "In F": 3}
    assert graph.merged_steps == 8 / 13


def test_ends_are_marked_by_how_they_came():
    played = group()
    played.trajectories[1].stop = "max_turns"
    ends = {node.text: node.ends for node in graph_of(played).nodes if node.ends}
    assert ends == {"In S": {"solved": 2}, "In F": {"cut off": 1, "failed": 1}}


def test_with_history_a_state_is_one_node_for_each_way_to_it_that_counts():
    states = [sum(node.text == "In s2" for node in graph_of(history=each).nodes) for each in (0, 1, 2, None)]
    assert states == [1, 1, 2, 2]
    tree = graph_of(history=None)
    assert len(tree.arrows) == len(tree.nodes) - 1


def test_every_path_of_the_graph_is_that_of_a_trajectory():
    for history in (0, 1, None):
        graph = graph_of(history=history)
        for path, trajectory in zip(graph.paths, group().trajectories, strict=True):
            walk = [graph.arrows[number] for number in path.arrows]
            assert [arrow.action for arrow in walk] == [turn.action.text for turn in trajectory.turns]
            assert all(one.target == other.source for one, other in pairwise(walk))


def test_where_the_next_state_is_not_compared_arrows_of_one_edge_share_its_advantage():
    graph = graph_of(group(["s0 a s1", "s0 a s2"], [1.0, 0.0]), include_next_state=False)
    assert set(arrows(graph).values()) == {(0.0, 1)}
    assert len(graph.arrows) == 2


def test_a_trajectory_without_turns_leaves_no_trace():
    played = group([*GOLDEN, "s0"], [*REWARDS, 0.0])
    played.trajectories[-1].turns, played.trajectories[-1].final = [], None
    graph = graph_of(played)
    assert graph.paths[-1].arrows == []
    assert sum(node.visits for node in graph.nodes) == 17


# The picture


def wild(seed):
    """Return a graph with loops, ways back and jumps."""
    random = Random(seed)

    def path():
        states = [f"s{random.randrange(9)}" for _ in range(random.randint(2, 12))]
        return " ".join(f"{state} {random.choice('abc')}" for state in states[:-1]) + f" {states[-1]}"

    return graph_of(group([path() for _ in range(6)], [random.choice([0.0, 1.0]) for _ in range(6)]))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_lies_on_anything_else(seed):
    graph = wild(seed)
    layout = arrange(graph, [100.0] * len(graph.arrows))
    assert min(item.y - item.height / 2 for item in layout.items) == pytest.approx(0)
    for one, other in combinations(layout.items, 2):
        if one.layer == other.layer:
            assert abs(one.y - other.y) >= (one.height + other.height) / 2
    assert all(right <= left for right, left in zip(layout.right, layout.left[1:], strict=False))
    assert len({route.label for route in layout.routes}) == len(graph.arrows)


@pytest.mark.parametrize("seed", range(6))
def test_lines_go_from_layer_to_layer_and_end_at_their_nodes(seed):
    graph = wild(seed)
    layout = arrange(graph, [100.0] * len(graph.arrows))
    kinds = set()
    for arrow, route in zip(graph.arrows, layout.routes, strict=True):
        kinds.add(route.kind)
        ends = (arrow.target, arrow.source) if route.kind == "back" else (arrow.source, arrow.target)
        assert (route.items[0], route.items[-1]) == ends
        assert layout.items[route.label].height == LABEL_HEIGHT
        layers = [layout.items[item].layer for item in route.items]
        straight = [layers[0] + place for place in range(len(layers))]
        assert layers == ([layers[0], layers[0] + 1, layers[0]] if route.kind == "hook" else straight)
    assert kinds == {"forward", "back", "hook"}


def test_lines_of_a_graph_without_crossings_do_not_cross():
    paths = [f"s0 {letter} m{letter} b e{letter} c S" for letter in "abcdef"]
    layout = arrange(graph_of(group(paths, [1.0, 0, 0, 1, 0, 1])), [80.0] * 18)
    firsts, seconds = (
        [layout.items[route.items[-1]].y for route in layout.routes[place::3]] for place in (0, 1)
    )
    order = sorted(range(6), key=firsts.__getitem__)
    assert order == sorted(range(6), key=seconds.__getitem__)


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_is_an_svg_that_needs_nothing_else(seed):
    graph = wild(seed)
    text = draw(graph, "a subtitle")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert "a subtitle" in [each.text for each in root.iter(f"{SVG}text")]
    boxes = [each for each in root.iter(f"{SVG}rect") if each.get("height") == f"{NODE_HEIGHT:.0f}"]
    assert len(boxes) == len(graph.nodes)
    assert "href" not in text
    assert "<script" not in text
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(
        float(each.get("x")) < width and float(each.get("y")) < height for each in root.iter(f"{SVG}text")
    )


def test_red_is_below_zero_and_blue_is_above():
    text = draw(graph_of(group(["s0 a s1", "s0 b s2", "s0 c s3 d s4"], [1.0, 0.0, 0.5])), "")
    lines = {
        each.find(f"{SVG}title").text.split("\n")[0]: each.find(f"{SVG}path").get("stroke")
        for each in ElementTree.fromstring(text).iter(f"{SVG}g")
        if each.get("class") and each.find(f"{SVG}path") is not None
    }
    assert lines == {"do a": "#1c5cbe", "do b": "#c42828", "do c": "#a0a0a0", "do d": "#a0a0a0"}


def test_texts_that_xml_or_html_would_take_for_something_else_are_shown():
    played = group(["s0 a s1", "s0 b s2"], [1.0, 0.0])
    nasty = 'a <b> & "c"\x00\x1b[1m \ud800 </script>' + "z" * 300
    played.trajectories[0].turns[0] = Turn(Observation(nasty, state_key="k"), Action(nasty))
    played.trajectories[1].turns[0] = Turn(Observation("", state_key=""), Action(""))
    graph = graph_of(played)
    shown = [each.text or "" for each in ElementTree.fromstring(draw(graph, "")).iter(f"{SVG}text")]
    assert "(empty)" in shown
    assert max(len(text) for text in shown) < 100
    assert "</script>z" not in make_page(graph, "")


def test_a_page_lists_the_trajectories_beside_the_picture():
    page = make_page(graph_of(), "of a test")
    assert page.count('<tr id="t') == 4
    assert "<td>+0.33 -0.33 +1.00" in page
    assert ".chosen.t3 .edge.t3" in page


# The command


@pytest.fixture
def run(tmp_path):
    """Return a run with two recorded steps."""
    folder = tmp_path / "run"
    folder.mkdir()
    options = "{name: salt, base: rloo, history: 1}"
    (folder / "run.yaml").write_text(f"env: deepsearch\nalgorithm: {options}\n")
    (folder / "trajectories").mkdir()
    equal = group(["s0 a s1", "s0 a s1"], [1.0, 1.0], "equal")
    save_trajectories(folder / "trajectories" / "step-000001.jsonl.gz", [equal, group(task="golden")])
    save_trajectories(folder / "trajectories" / "step-000002.jsonl.gz", [equal])
    save_trajectories(folder / "trajectories" / "eval-000002.jsonl.gz", [group(task="held out")])
    return folder


def graph_command(*arguments):
    """Return the exit code of `agentrl graph`."""
    with pytest.raises(SystemExit) as stopped:
        main(["graph", *map(str, arguments)])
    return stopped.value.code


def test_the_last_task_that_taught_something_is_drawn_with_the_options_of_its_run(run, capsys):
    out = run.parent / "deep" / "graph.json"
    assert graph_command(run, "--out", out) == 0
    assert "task golden, step 1" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["task"] == "golden"
    assert "base rloo, history 1" in found["of"]
    # The golden numbers for a history of 1, over leave-one-out.
    expected = [[1 / 3, 0, 1], [1 / 3, 0, -1], [1 / 3, 1, 1], [-1, -1, -1, -1]]
    for trajectory, numbers in zip(found["trajectories"], expected, strict=True):
        assert trajectory["step_advantages"] == pytest.approx([2 / 3 * number for number in numbers])
    edge = found["edges"][found["trajectories"][0]["edges"][0]]
    assert found["nodes"][edge["target"]]["text"] == "In s1"


def test_step_and_task_can_be_chosen_and_the_picture_goes_into_the_run(run, capsys):
    assert graph_command(run, "--step", 2) == 0
    assert "task equal, step 2" in capsys.readouterr().out
    assert "all rewards are equal" in (run / "graph.svg").read_text()
    assert graph_command(run, "--task", "equal", "--out", run / "page.html") == 0
    assert "task equal, step 2" in capsys.readouterr().out
    assert (run / "page.html").read_text().startswith("<!doctype html>")


def test_another_algorithms_run_is_read_as_salt_would_by_default(run, capsys):
    (run / "run.yaml").write_text("env: deepsearch\nalgorithm: gigpo\n")
    assert graph_command(run) == 0
    assert "base grpo, history 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--step", "7"], "has no step 7; it has 1 to 2"),
        (["--task", "gulden"], "task 'gulden' was not played in the run in"),
        (["--task", "gulden"], "did you mean 'golden'?"),
        (["--task", "xyz"], "agentrl tasks"),
        (["--step", "2", "--task", "golden"], "task 'golden' was not played in step 2"),
        (["--out", "graph.png"], "must end in one of .svg, .json, .html"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(run, capsys, arguments, complaint):
    assert graph_command(run, *arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_folder_without_a_run_or_without_trajectories_is_said_to_be_one(run, tmp_path, capsys):
    assert graph_command(tmp_path / "nowhere") == 2
    assert "there is no run in" in capsys.readouterr().err
    for path in (run / "trajectories").iterdir():
        path.unlink()
    assert graph_command(run) == 2
    assert "has not finished an update" in capsys.readouterr().err


def test_failed_trajectories_are_left_out_and_without_turns_there_is_nothing_to_draw(run, capsys):
    failed = group(task="golden")
    for trajectory in failed.trajectories[:-1]:
        trajectory.stop = "error"
    save_trajectories(run / "trajectories" / "step-000003.jsonl.gz", [failed])
    assert graph_command(run, "--step", 3, "--out", run / "graph.json") == 0
    assert len(json.loads((run / "graph.json").read_text())["trajectories"]) == 1
    empty = Group(Task("empty"), [replace(failed.trajectories[-1], task=Task("empty"), turns=[], final=None)])
    save_trajectories(run / "trajectories" / "step-000004.jsonl.gz", [empty])
    capsys.readouterr()
    assert graph_command(run, "--task", "empty") == 1
    assert "no trajectory of task 'empty'" in capsys.readouterr().err


def test_a_damaged_file_is_named(run, capsys):
    path = run / "trajectories" / "step-000002.jsonl.gz"
    path.write_bytes(path.read_bytes()[:40])
    assert graph_command(run) == 1
    assert "step-000002.jsonl.gz cannot be read" in capsys.readouterr().err

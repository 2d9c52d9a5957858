"""Turns as transitions with keys, and numbers per turn laid over tokens."""

from agentrl import Action, Observation, Segment, Span, Task, Trajectory, Turn
from agentrl.steps import END, exact, normalized, spread, steps


def played(*turns, final=None, spans=()):
    return Trajectory(
        Task("t"),
        turns=[Turn(Observation(*seen), Action(*done)) for seen, done in turns],
        final=final,
        segments=[Segment([0] * 50, list(spans))],
    )


def test_keys_of_env_and_agent_are_meant_where_they_are_given():
    trajectory = played(
        (("Hall", False, "hall"), ("go  North", "north")),
        (("Dark  room", False, None), ("Take Lamp", None)),
        final=Observation("Done", True, "over"),
    )
    first, second = steps(trajectory)
    assert (first.state, first.action, first.next_state) == ("key:hall", "key:north", "text:dark room")
    assert (second.state, second.action, second.next_state) == (
        "text:dark room",
        "text:take lamp",
        "key:over",
    )
    assert (first.given, second.given) == (True, False)
    assert steps(trajectory, exact, exact, given_keys=False)[0].action == "text:go  North"


def test_a_trajectory_without_a_last_observation_ends():
    assert steps(played((("Hall",), ("wait",))))[0].next_state == END


def test_a_key_is_never_taken_for_a_text():
    keyed, worded = (steps(played((seen, ("x",))))[0].state for seen in (("a", False, "b"), ("b",)))
    assert keyed != worded


def test_normalized_texts_lose_what_differs_between_two_looks():
    assert normalized("At  2026-11-21T10:00:01Z SAW\ntoken a8f3c2e19b7d4410ff, 12:30") == (
        normalized("at 2025-01-02 11:22:33 saw token 00ffc2e19b7d4410ab, 9:15")
    )
    assert normalized("room 3") != normalized("room 4")


def test_a_time_in_an_action_is_part_of_what_it_does():
    first, second = steps(played((("At 12:30",), ("Book  12:30",)), (("At 9:15",), ("book 9:15",))))
    assert first.state == second.state
    assert (first.action, second.action) == ("text:book 12:30", "text:book 9:15")


def test_numbers_of_turns_are_laid_over_their_tokens():
    spans = [Span(1, [-1.0] * 2, 0), Span(5, [-1.0], 1), Span(9, [-1.0] * 3, 1), Span(20, [-1.0], 2)]
    trajectory = played((("a",), ("x",)), (("b",), ("y",)), spans=spans)
    assert spread(trajectory, [5.0, 6.0], rest=7.0) == [5, 5, 6, 6, 6, 6, 7]

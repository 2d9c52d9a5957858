"""Are the weights that an engine is given those of its model?"""

from collections.abc import Mapping, Sequence

from .errors import AgentRLError


def check_weights(
    given: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]], missing: Sequence[str]
) -> None:
    """Compare the shapes of the tensors that are `given`, by name, with those of the engine's model.

    Args:
        given: what the trainer sends.
        own: every name the model knows, of tied parameters all of them.
        missing: parameters that are given under none of their names.

    Raises:
        AgentRLError: some are missing, unknown or of another shape.
    """
    unknown = [name for name in given if name not in own]
    misshapen = [name for name in given if name in own and tuple(given[name]) != tuple(own[name])]
    problems = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    found = [f"{len(names)} {what} (such as {names[0]})" for what, names in problems.items() if names]
    if found:
        raise AgentRLError(
            f"the trainer's weights are not those of the engine's model: {', '.join(found)}; "
            "give both the same --model"
        )

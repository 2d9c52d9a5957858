"""Whether the model hub can be reached, before anybody waits for it."""

from importlib.util import find_spec
from pathlib import Path

from agentrl.errors import first_line
from agentrl.footprint import unknown_model

_CONFIG = "config.json"


def check_reach(model: Path | str) -> None:
    """Ask the hub once for the config of `model` if it is not here; its library would try for half a minute.

    That the hub answers is enough: whether it has the model is seen when its config is read.

    Raises:
        UsageError: it does not answer.
    """
    if isinstance(model, Path) or find_spec("huggingface_hub") is None:
        return
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    if try_to_load_from_cache(model, _CONFIG):
        return
    try:
        get_hf_file_metadata(hf_hub_url(model, _CONFIG))
    except HfHubHTTPError:
        return
    except Exception as error:  # of whichever client the installed library has
        silent = ConnectionError(f"{constants.ENDPOINT} does not answer: {first_line(error)}")
        raise unknown_model(model, silent) from error

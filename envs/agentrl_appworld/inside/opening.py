"""Open AppWorld's folder and rehearse, so that processes forked afterwards find everything at hand.

What an API call does for the first time in a process, such as to make the class that validates what it
stores, takes several times as long as the call. Worker and judge both read this file.
"""

import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_REHEARSAL = """
me = apis.supervisor.show_profile()
for account in apis.supervisor.show_account_passwords():
    app, name = account["account_name"], me["email"]
    if app == "phone":
        name = me["phone_number"]
    getattr(apis, app).login(username=name, password=account["password"])
print(apis.api_docs.show_app_descriptions())
"""


def open_root(root: str) -> str:
    """Make AppWorld use the folder `root`, which has data/, and return a task there is.

    Raises:
        FileNotFoundError: there is none.
    """
    os.environ["APPWORLD_ROOT"] = root
    # That AppWorld signs its tokens with a short key is no news, but would be told for every call.
    warnings.filterwarnings("ignore", module="jwt")
    from appworld import update_root  # type: ignore[import-not-found]
    from hastening import hasten  # type: ignore[import-not-found]

    hasten()
    update_root(root)
    tasks = sorted(path.name for path in (Path(root) / "data" / "tasks").iterdir())
    if not tasks:
        raise FileNotFoundError(f"there is no task in {root}/data/tasks; build or download the data first")
    return tasks[0]


def rehearse(task: str) -> None:
    """Open a world and log in to every app in it.

    Raises:
        RuntimeError: that went wrong; the message has what AppWorld says.
    """
    from appworld import AppWorld
    from appworld.apps.model_lib import SQLModel  # type: ignore[import-not-found]

    name = f"rehearsal-{uuid.uuid4().hex}"
    world = AppWorld(task_id=task, experiment_name=name, load_ground_truth=False)
    try:
        said = world.execute(_REHEARSAL)
    finally:
        world.close()
        shutil.rmtree(world.base_output_directory, ignore_errors=True)
    if said.startswith("Execution failed"):
        raise RuntimeError(f"the supervisor of task {task} cannot log in to their apps: {said}")
    for model in tuple(_kinds_of(SQLModel)):
        if model.is_table_model():
            model.validator()


def _kinds_of(kind: Any) -> Iterator[Any]:
    for one in kind.__subclasses__():
        yield one
        yield from _kinds_of(one)

"""What all tasks share: the databases with everybody's accounts, and the documentation of the APIs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appworld.apps import get_all_apps  # type: ignore[import-not-found]
from appworld.apps.api_lib import (  # type: ignore[import-not-found]
    set_local_date_and_time,
    unset_local_date_and_time,
)
from appworld.apps.model_lib import CachedDBHandler  # type: ignore[import-not-found]
from appworld.collections.api_docs import ApiDocCollection  # type: ignore[import-not-found]
from appworld.collections.models import ModelCollection  # type: ignore[import-not-found]
from appworld.common.constants import (  # type: ignore[import-not-found]
    CANARY_STRING,
    DEFAULT_SYSTEM_DATETIME,
)

from .accounts import open_account
from .files import write_json
from .words import Person, password

APPS = tuple(get_all_apps())
WITHOUT_ACCOUNTS = ("admin", "api_docs", "supervisor")
ACCOUNT_APPS = tuple(app for app in APPS if app not in WITHOUT_ACCOUNTS)


def write_docs(data: Path) -> None:
    """Write the documentation of all APIs, which AppWorld can derive from its own code."""
    docs = ApiDocCollection.build(load_apps=tuple(get_all_apps(skip_admin=True)))
    for app, apis in docs.items():
        marked = {name: dict(doc, canary_string=CANARY_STRING) for name, doc in apis.items()}
        write_json(data / "api_docs" / "standard" / f"{app}.json", marked)


def write_base(data: Path, everybody: Iterable[Person]) -> None:
    """Write the shared databases."""
    clock = set_local_date_and_time(DEFAULT_SYSTEM_DATETIME)
    memory = ":memory:base"
    models = ModelCollection.load(
        to_db_home_path=memory, from_db_home_path=memory, load_apps=list(APPS), create_db=True
    )
    _add_docs(models)
    for person in everybody:
        _add_person(models, person)
    models.save(str(data / "base_dbs"), format="full", app_names=list(APPS), delete_if_exists=True)
    unset_local_date_and_time(clock)
    CachedDBHandler.reset()


def _add_docs(models: Any) -> None:
    for app, apis in ApiDocCollection.load().items():
        for name, doc in apis.items():
            fields = ("path", "method", "description", "parameters", "response_schemas")
            models.api_docs.ApiDoc(
                app_name_=app, api_name=name, **{field: doc[field] for field in fields}
            ).save()


def _add_person(models: Any, person: Person) -> None:
    main = models.admin.MainUser(**vars(person))
    main.save()
    for app in ACCOUNT_APPS:
        secret = password(person, app)
        models.admin.AccountPassword(main_user_id=main.id, account_name=app, password=secret).save()
        user = open_account(models, person, app)
        if app == "file_system":
            for path in ("/", "/home/", user.home_directory_path):
                models.file_system.Directory(path=path, user_id=user.id).save()

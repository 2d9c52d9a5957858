"""Accounts in AppWorld's apps."""

from typing import Any

from .words import Person, password


def key_of(app: str) -> str:
    """Return by which field an app knows its users."""
    return "phone_number" if app == "phone" else "email"


def open_account(models: Any, person: Person, app: str) -> Any:
    """Save and return the row of somebody new to an app."""
    key = key_of(app)
    fields = {key: getattr(person, key)} | ({} if app in ("phone", "gmail") else {"verified": True})
    user = models[app].User(
        first_name=person.first_name, last_name=person.last_name, password=password(person, app), **fields
    )
    user.save()
    return user

"""Correct a phone number."""

from typing import Any

from ..scenario import Change, Place, Problem, Scenario, login
from ..words import Person


class ContactNumber(Scenario):
    """Find a contact by name and change the number."""

    name = "contact"
    apps = ("phone",)
    difficulty = 2
    wordings = (
        "{name} has a new phone number: {number}. Change it in my contacts.",
        "Update the phone number of my contact {name} to {number}.",
        "Change the number of {name} in my phone contacts to {number}.",
    )

    def pose(self, place: Place) -> Problem:
        """Give me contacts."""
        rows = furnish(place)
        friend, other = place.others[:2]
        number = f"555{place.chance.randrange(1_000_000, 2_000_000)}"

        def code(person: Person) -> str:
            find = f'apis.phone.search_contacts(query="{person.name}", access_token=phone_token)'
            arguments = f'contact_id=contact["contact_id"], phone_number="{number}", access_token=phone_token'
            return f"contact = {find}[0]\napis.phone.update_contact({arguments})"

        first, second = code(friend).split("\n")
        return Problem(
            values={"name": friend.name, "number": number},
            steps=[login("phone"), f"{first}\nprint(contact)", second],
            wrong=f"{login('phone')}\n{code(other)}",
            twice=f"{login('phone')}\n{code(friend)}\n{code(other)}",
            changes={"phone.Contact": Change(updated={rows[friend].id: {"phone_number": number}})},
        )


def furnish(place: Place) -> dict[Person, Any]:
    """Put everybody into my contacts; return their rows."""
    mine = place.user("phone").id
    relationships = ("friend", "coworker", "neighbor")
    return {
        person: place.add(
            "phone.Contact",
            user_id=mine,
            first_name=person.first_name,
            last_name=person.last_name,
            email=person.email,
            phone_number=person.phone_number,
            relationships=[relationships[index % 3]],
        )
        for index, person in enumerate(place.others)
    }

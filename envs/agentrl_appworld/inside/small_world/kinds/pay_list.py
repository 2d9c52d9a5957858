"""Pay everybody on a list."""

from ..scenario import Change, Place, Problem, Scenario, join, login
from ..words import ITEMS
from .contact import furnish as furnish_contacts
from .pay import furnish as furnish_money
from .pay import payments


class PayList(Scenario):
    """Read names and amounts in a note, look up e-mail addresses in the contacts, and pay."""

    name = "paylist"
    apps = ("simple_note", "phone", "venmo")
    difficulty = 3
    wordings = (
        'My note "{title}" says whom I owe how much. Pay them all on Venmo, with the description "{what}".',
        'Pay everybody in my note "{title}" what I owe them, on Venmo. Use the description "{what}".',
        'Settle the debts in my Simple Note note "{title}" with Venmo. As description write "{what}".',
    )

    def pose(self, place: Place) -> Problem:
        """Give me money, contacts, and notes with debts."""
        furnish_money(place)
        furnish_contacts(place)
        chance, mine = place.chance, place.user("simple_note").id
        title, other = place.things[:2]
        owed = {person: chance.randrange(5, 60) for person in place.others[:3]}
        old = {person: chance.randrange(60, 90) for person in place.others[3:6]}
        for name, debts in ((title, owed), (other, old)):
            content = "\n".join(f"{person.name}: {amount}" for person, amount in debts.items())
            place.add("simple_note.Note", user_id=mine, title=name, content=content)
        what = chance.choice(ITEMS)

        def read(name: str) -> str:
            return f"""\
found = apis.simple_note.search_notes(query="{name}", access_token=simple_note_token)
note_id = [n["note_id"] for n in found if n["title"] == "{name}"][0]
note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)
debts = [line.split(": ") for line in note["content"].splitlines()]"""

        start = login("simple_note", "phone", "venmo")
        pay = f"""\
for name, amount in debts:
    contact = apis.phone.search_contacts(query=name, access_token=phone_token)[0]
    apis.venmo.create_transaction(
        receiver_email=contact["email"], amount=int(amount), description="{what}", access_token=venmo_token
    )"""
        changes: dict[str, Change] = payments(place, owed, what)
        return Problem(
            values={"title": title, "what": what},
            steps=[start, f"{read(title)}\nprint(debts)", pay],
            wrong=join(start, read(other), pay),
            twice=join(start, read(title), pay, pay),
            changes=changes,
        )

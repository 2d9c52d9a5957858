"""Send somebody money."""

from collections.abc import Mapping

from ..scenario import ANYTHING, Change, Place, Problem, Scenario, login
from ..words import Person

START_BALANCE = 500


class Pay(Scenario):
    """Send an amount from the Venmo balance to an e-mail address."""

    name = "pay"
    apps = ("venmo",)
    difficulty = 1
    wordings = (
        'Send ${amount} to {name} <{email}> on Venmo. Description: "{thing}".',
        'Pay {name} <{email}> ${amount} on Venmo, with the description "{thing}".',
        'I owe {name} <{email}> ${amount}. Pay it with Venmo, description "{thing}".',
    )

    def pose(self, place: Place) -> Problem:
        """Give me enough money."""
        payee, other = place.strangers("venmo")
        furnish(place, payee, other)
        amount, thing = place.chance.randrange(5, 100), place.things[0]

        def code(person: Person) -> str:
            arguments = f'receiver_email="{person.email}", amount={amount}, description="{thing}"'
            return f"apis.venmo.create_transaction({arguments}, access_token=venmo_token)"

        start = login("venmo")
        return Problem(
            values={"amount": amount, "name": payee.name, "email": payee.email, "thing": thing},
            steps=[start, code(payee)],
            wrong=f"{start}\n{code(other)}",
            twice=f"{start}\n{code(payee)}\n{code(payee)}",
            changes=payments(place, {payee: amount}, thing),
        )


def furnish(place: Place, *more: Person) -> None:
    """Give everybody money."""
    for person in (place.me, *place.others, *more):
        user = place.user("venmo", person)
        user.venmo_balance = START_BALANCE
        user.save()


def payments(place: Place, amounts: Mapping[Person, int], description: str) -> dict[str, Change]:
    """Return what changes when I pay these amounts."""
    mine = place.user("venmo").id
    ids = {person: place.user("venmo", person).id for person in amounts}
    balances = {ids[person]: {"venmo_balance": START_BALANCE + amount} for person, amount in amounts.items()}
    balances[mine] = {"venmo_balance": START_BALANCE - sum(amounts.values())}
    sent = [
        {
            "sender_id": mine,
            "receiver_id": ids[person],
            "amount": amount,
            "description": description,
            "private": False,
            "payment_card_digits": None,
        }
        for person, amount in amounts.items()
    ]
    told = [{"user_id": ids[person], "type": ANYTHING} for person in amounts]
    return {
        "venmo.Transaction": Change(added=sent),
        "venmo.User": Change(updated=balances),
        "venmo.Notification": Change(added=told),
    }

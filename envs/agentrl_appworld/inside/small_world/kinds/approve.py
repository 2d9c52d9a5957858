"""Approve payment requests."""

from ..scenario import ANYTHING, Change, Place, Problem, Scenario, join, login
from .pay import furnish, payments


class Approve(Scenario):
    """Approve every pending request up to an amount, over all pages, and none above."""

    name = "approve"
    apps = ("venmo",)
    difficulty = 3
    wordings = (
        "Approve all my pending Venmo payment requests of at most {limit} dollars.",
        "Approve each pending payment request on Venmo that asks for {limit} dollars or less.",
        "On Venmo, accept every pending request of up to {limit} dollars, but none above.",
    )

    def pose(self, place: Place) -> Problem:
        """Let eight people ask for money, some of them for too much."""
        furnish(place)
        chance, limit = place.chance, place.chance.randrange(20, 41)
        amounts = [
            *(chance.randrange(5, limit) for _ in range(3)),
            limit,
            *(chance.randrange(limit + 1, 80) for _ in range(4)),
        ]
        chance.shuffle(amounts)
        mine, thing = place.user("venmo").id, place.things[0]
        asked = dict(zip(place.others, amounts, strict=False))
        rows = {
            person: place.add(
                "venmo.PaymentRequest",
                sender_id=place.user("venmo", person).id,
                receiver_id=mine,
                amount=amount,
                description=thing,
            )
            for person, amount in asked.items()
        }
        due = {person: amount for person, amount in asked.items() if amount <= limit}
        approved = {rows[person].id: {"approved_at": ANYTHING} for person in due}
        start = login("venmo")
        return Problem(
            values={"limit": limit},
            steps=[start, f"{PAGES}\nprint(len(requests))", approve(f"<= {limit}")],
            wrong=join(start, PAGES, approve(f"> {limit}")),
            twice=join(start, PAGES, approve(f"<= {max(amounts)}")),
            changes={
                "venmo.PaymentRequest": Change(updated=approved),
                **payments(place, due, thing),
            },
        )


PAGES = """\
requests, page = [], 0
while True:
    found = apis.venmo.show_received_payment_requests(
        status="pending", page_index=page, access_token=venmo_token
    )
    if not found:
        break
    requests += found
    page += 1"""


def approve(condition: str) -> str:
    """Return the code that approves the requests of which the amount meets a condition, such as "<= 30"."""
    return f"""\
for request in requests:
    if request["amount"] {condition}:
        apis.venmo.approve_payment_request(
            payment_request_id=request["payment_request_id"], access_token=venmo_token
        )"""

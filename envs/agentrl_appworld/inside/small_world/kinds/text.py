"""Send a text message."""

from ..scenario import ANYTHING, Change, Place, Problem, Scenario, login
from ..words import Person


class Text(Scenario):
    """Send a text message to a phone number."""

    name = "text"
    apps = ("phone",)
    difficulty = 1
    wordings = (
        'Text {number}: "bring the {thing}"',
        'Send a text message to {number} that says "bring the {thing}".',
        'Message the number {number} on my phone. Write "bring the {thing}".',
    )

    def pose(self, place: Place) -> Problem:
        """The number has to be somebody's."""
        friend, other = place.strangers("phone")
        thing = place.things[0]

        def code(person: Person) -> str:
            arguments = f'phone_number="{person.phone_number}", message="bring the {thing}"'
            return f"apis.phone.send_text_message({arguments}, access_token=phone_token)"

        mine, theirs = place.user("phone").id, place.user("phone", friend).id
        sent = {"sender_id": mine, "receiver_id": theirs, "message": f"bring the {thing}"}
        copies = [{"user_id": user, "global_text_message_id": ANYTHING} for user in (mine, theirs)]
        start = login("phone")
        return Problem(
            values={"number": friend.phone_number, "thing": thing},
            steps=[start, code(friend)],
            wrong=f"{start}\n{code(other)}",
            twice=f"{start}\n{code(friend)}\n{code(friend)}",
            changes={
                "phone.GlobalTextMessage": Change(added=[sent]),
                "phone.UserTextMessage": Change(added=copies),
            },
        )

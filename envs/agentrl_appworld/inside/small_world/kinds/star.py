"""Star an e-mail thread."""

from typing import Any

from ..scenario import Change, Place, Problem, Scenario, login
from ..words import Person


class Star(Scenario):
    """Find an e-mail by its subject and star its thread."""

    name = "star"
    apps = ("gmail",)
    difficulty = 2
    wordings = (
        'Star the email "the {subject}" in my Gmail inbox.',
        'Mark the Gmail thread "the {subject}" as starred.',
        'The email "the {subject}" is important. Star it in Gmail.',
    )

    def pose(self, place: Place) -> Problem:
        """Send me e-mails."""
        threads = {
            subject: receive(place, person, f"the {subject}", f"Let us talk about the {subject}.")
            for subject, person in zip(place.things[:6], place.others, strict=False)
        }
        subject, other = place.chance.sample(sorted(threads), 2)

        def code(about: str) -> str:
            find = f'apis.gmail.show_inbox_threads(query="{about}", access_token=gmail_token)'
            choose = f'[t for t in {find} if t["subject"] == "the {about}"][0]'
            arguments = 'email_thread_id=thread["email_thread_id"], access_token=gmail_token'
            return f"thread = {choose}\napis.gmail.mark_thread_starred({arguments})"

        first, second = code(subject).split("\n")
        return Problem(
            values={"subject": subject},
            steps=[login("gmail"), f"{first}\nprint(thread)", second],
            wrong=f"{login('gmail')}\n{code(other)}",
            twice=f"{login('gmail')}\n{code(subject)}\n{code(other)}",
            changes={"gmail.UserEmailThread": Change(updated={threads[subject].id: {"starred": True}})},
        )


def receive(place: Place, sender: Person, subject: str, body: str) -> Any:
    """Let somebody send me an e-mail; return my thread."""
    mine, theirs = place.user("gmail").id, place.user("gmail", sender).id
    email = place.add("gmail.Email", sender_id=theirs, recipient_ids=[mine], subject=subject, body=body)
    thread = place.add("gmail.GlobalEmailThread", email_ids=[email.id])
    sides = [
        place.add(
            "gmail.UserEmailThread",
            global_email_thread_id=thread.id,
            user_id=user,
            email_ids=[email.id],
            incoming=user == mine,
            outgoing=user == theirs,
            read=user == theirs,
        )
        for user in (theirs, mine)
    ]
    return sides[1]

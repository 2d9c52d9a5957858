"""Write a note."""

from ..scenario import Change, Place, Problem, Scenario, login
from ..words import ITEMS


class NoteWrite(Scenario):
    """Create a note with a title and a content."""

    name = "notewrite"
    apps = ("simple_note",)
    difficulty = 1
    wordings = (
        'Write a note titled "{title}" that says "{content}".',
        'Create a note in Simple Note. Title: "{title}". Content: "{content}".',
        'Note down "{content}" in a new note titled "{title}".',
    )

    def pose(self, place: Place) -> Problem:
        """Give me other notes already."""
        mine = place.user("simple_note").id
        title, other, *titles = place.things[:6]
        for each in titles:
            place.add("simple_note.Note", user_id=mine, title=each, content=place.chance.choice(ITEMS))
        content = place.chance.choice(ITEMS)

        def code(name: str) -> str:
            arguments = f'title="{name}", content="{content}", access_token=simple_note_token'
            return f"apis.simple_note.create_note({arguments})"

        start = login("simple_note")
        row = {"user_id": mine, "title": title, "content": content, "tags": [], "pinned": False}
        return Problem(
            values={"title": title, "content": content},
            steps=[start, code(title)],
            wrong=f"{start}\n{code(other)}",
            twice=f"{start}\n{code(title)}\n{code(other)}",
            changes={"simple_note.Note": Change(added=[row])},
        )

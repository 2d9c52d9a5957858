"""Pin a note."""

from ..scenario import Change, Place, Problem, Scenario, login
from ..words import ITEMS


class NotePin(Scenario):
    """Find a note by its title and pin it."""

    name = "notepin"
    apps = ("simple_note",)
    difficulty = 2
    wordings = (
        'Pin my note "{title}".',
        'Pin the note titled "{title}" in Simple Note.',
        'I need my note "{title}" at the top. Pin it.',
    )

    def pose(self, place: Place) -> Problem:
        """Give me notes, none of them pinned."""
        mine = place.user("simple_note").id
        rows = {
            title: place.add(
                "simple_note.Note",
                user_id=mine,
                title=title,
                content=place.chance.choice(ITEMS),
                pinned=False,
            )
            for title in place.things[:8]
        }
        title, other = place.chance.sample(sorted(rows), 2)

        def code(name: str) -> str:
            find = f'apis.simple_note.search_notes(query="{name}", access_token=simple_note_token)'
            choose = f'[n for n in {find} if n["title"] == "{name}"][0]'
            arguments = 'note_id=note["note_id"], pinned=True, access_token=simple_note_token'
            return f"note = {choose}\napis.simple_note.update_note({arguments})"

        first, second = code(title).split("\n")
        start = login("simple_note")
        return Problem(
            values={"title": title},
            steps=[start, f"{first}\nprint(note)", second],
            wrong=f"{start}\n{code(other)}",
            twice=f"{start}\n{code(title)}\n{code(other)}",
            changes={"simple_note.Note": Change(updated={rows[title].id: {"pinned": True}})},
        )

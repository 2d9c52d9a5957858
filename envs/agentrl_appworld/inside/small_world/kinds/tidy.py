"""Tidy up files."""

from collections import Counter

from ..scenario import Change, Place, Problem, Scenario, join, login
from .file_remove import furnish


class Tidy(Scenario):
    """Move the files of which the name begins with a word to another folder."""

    name = "tidy"
    apps = ("file_system",)
    difficulty = 3
    wordings = (
        'Move all files in ~/downloads whose name starts with "{word}" to ~/documents.',
        'Tidy up: every file in ~/downloads that begins with "{word}" belongs in ~/documents. Move them.',
        'Move each file whose name begins with "{word}" from ~/downloads to ~/documents.',
    )

    def pose(self, place: Place) -> Problem:
        """Give me downloads, some of which begin with the same word."""
        place.things.sort()
        often = Counter(thing.split()[0] for thing in place.things)
        word, other = place.chance.sample(sorted(each for each in often if often[each] > 1), 2)
        same = [thing for thing in place.things if thing.split()[0] in (word, other)]
        rest = [thing for thing in place.things if thing not in same]
        place.things[:] = same + rest
        furnish(place, "documents", number=0)
        rows = furnish(place, "downloads", number=len(same) + 3)
        user = place.user("file_system")
        moved = {name: row for name, row in rows.items() if name.startswith(f"{word}_")}
        home = user.home_directory_path
        added = [
            {"user_id": user.id, "path": f"{home}documents/{name}", "content": row.content}
            for name, row in moved.items()
        ]
        start = login("file_system")
        return Problem(
            values={"word": word},
            steps=[start, f"{SHOW}\nprint(paths)", move(word, "move")],
            wrong=join(start, SHOW, move(other, "move")),
            twice=join(start, SHOW, move(word, "move"), move(other, "move")),
            changes={
                "file_system.File": Change(added=added, removed=[row.id for row in moved.values()]),
            },
        )


SHOW = 'paths = apis.file_system.show_directory(directory_path="~/downloads", access_token=file_system_token)'


def move(word: str, verb: str) -> str:
    """Return the code that moves or copies the files that begin with a word."""
    return f"""\
for path in paths:
    name = path.split("/")[-1]
    if name.startswith("{word}_"):
        apis.file_system.{verb}_file(
            source_file_path=path, destination_file_path="~/documents/" + name, access_token=file_system_token
        )"""

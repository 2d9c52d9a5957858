"""Delete a file."""

from typing import Any

from ..scenario import Change, Place, Problem, Scenario, login


class FileRemove(Scenario):
    """Delete a file of which the path is known."""

    name = "fileremove"
    apps = ("file_system",)
    difficulty = 1
    wordings = (
        "Delete the file ~/documents/{file}.",
        "Remove ~/documents/{file} from my file system.",
        "I no longer need the file ~/documents/{file}. Delete it.",
    )

    def pose(self, place: Place) -> Problem:
        """Give me files, one of them to be deleted."""
        files = furnish(place)
        (path, row), (other, _) = place.chance.sample(sorted(files.items()), 2)
        start = login("file_system")

        def code(name: str) -> str:
            arguments = f'file_path="~/documents/{name}", access_token=file_system_token'
            return f"apis.file_system.delete_file({arguments})"

        return Problem(
            values={"file": path},
            steps=[start, code(path)],
            wrong=f"{start}\n{code(other)}",
            twice=f"{start}\n{code(path)}\n{code(other)}",
            changes={"file_system.File": Change(removed=[row.id])},
        )


def furnish(place: Place, folder: str = "documents", number: int = 6) -> dict[str, Any]:
    """Give me files in a folder of my home; return their rows by name."""
    user = place.user("file_system")
    home = user.home_directory_path
    if not place.models.file_system.Directory.find_one(path=f"{home}{folder}/", user_id=user.id):
        place.add("file_system.Directory", path=f"{home}{folder}/", user_id=user.id)
    return {
        f"{thing.replace(' ', '_')}.txt": place.add(
            "file_system.File",
            path=f"{home}{folder}/{thing.replace(' ', '_')}.txt",
            user_id=user.id,
            content=place.things[-1 - index],
        )
        for index, thing in enumerate(place.things[:number])
    }

"""Tell what a file says."""

from ..scenario import Place, Problem, Scenario, login
from .file_remove import furnish


class FileRead(Scenario):
    """Read a file of which the path is known."""

    name = "fileread"
    apps = ("file_system",)
    difficulty = 1
    wordings = (
        "What does the file ~/documents/{file} say?",
        "Read me the file ~/documents/{file}.",
        "Tell me the content of ~/documents/{file} in my file system.",
    )

    def pose(self, place: Place) -> Problem:
        """Give me files and ask for what is in one of them."""
        files = furnish(place)
        (path, row), (other, _) = place.chance.sample(sorted(files.items()), 2)
        start = login("file_system")

        def code(name: str) -> str:
            arguments = f'file_path="~/documents/{name}", access_token=file_system_token'
            return f'found = apis.file_system.show_file({arguments})["content"]'

        return Problem(
            values={"file": path},
            steps=[start, code(path)],
            wrong=f"{start}\n{code(other)}",
            twice=f"{start}\n{code(path)}\nfound = str(found) + str(found)",
            answer=row.content,
            answer_code="found",
        )

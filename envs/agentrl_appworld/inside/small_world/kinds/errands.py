"""Turn an e-mail into to-dos."""

from ..scenario import Change, Place, Problem, Scenario, join, login
from ..words import ITEMS
from .star import receive
from .tick import find_project, furnish


class Errands(Scenario):
    """Read a list in an e-mail and make a task of each of its lines."""

    name = "errands"
    apps = ("gmail", "todoist")
    difficulty = 3
    wordings = (
        '{name} sent me an email with a list. Add each line as a task to my Todoist project "{project}".',
        'Make a Todoist task in the project "{project}" of every line of the email that {name} sent me.',
        'For each line of the email from {name}, create a task in my Todoist project "{project}".',
    )

    def pose(self, place: Place) -> Problem:
        """Send me lists."""
        project, other = furnish(place, place.things[0]), furnish(place, place.things[1])
        sender = place.others[0]
        lists = {}
        for person in place.others[:4]:
            lists[person] = [f"buy {item}" for item in place.chance.sample(ITEMS, 3)]
            receive(place, person, "what we need", "\n".join(lists[person]))
        mine = place.user("todoist").id
        plain = {"section_id": None, "due_date": None, "duration": None, "priority": "medium"}
        task = {"project_id": project.id, "user_id": mine, **plain}
        tasks = [{**task, "title": line} for line in lists[sender]]
        start = login("gmail", "todoist")
        read = f"""\
thread = apis.gmail.show_inbox_threads(from_email="{sender.email}", access_token=gmail_token)[0]
email = apis.gmail.show_email(email_id=thread["email_ids"][0], access_token=gmail_token)
lines = email["body"].splitlines()"""
        return Problem(
            values={"name": sender.name, "project": project.name},
            steps=[start, f"{read}\nprint(lines)", f"{find_project(project.name)}\n{CREATE}"],
            wrong=join(start, read, find_project(other.name), CREATE),
            twice=join(start, read, find_project(project.name), CREATE, CREATE),
            changes={"todoist.Task": Change(added=tasks)},
        )


CREATE = """\
for line in lines:
    apis.todoist.create_task(project_id=project["project_id"], title=line, access_token=todoist_token)"""

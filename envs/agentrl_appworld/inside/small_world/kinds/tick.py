"""Tick off a to-do."""

from typing import Any

from ..scenario import Change, Place, Problem, Scenario, join, login


class Tick(Scenario):
    """Find a task in a project and complete it."""

    name = "tick"
    apps = ("todoist",)
    difficulty = 2
    wordings = (
        'Mark the task "buy {task}" in my Todoist project "{project}" as completed.',
        'I am done with "buy {task}" in the project "{project}". Complete it in Todoist.',
        'Complete the task "buy {task}" of my project "{project}" on Todoist.',
    )

    def pose(self, place: Place) -> Problem:
        """Give me two projects with tasks."""
        project = furnish(place, place.things[0])
        furnish(place, place.things[1])
        rows = {
            thing: place.add(
                "todoist.Task",
                project_id=project.id,
                user_id=place.user("todoist").id,
                title=f"buy {thing}",
                priority="medium",
                order_index=index,
            )
            for index, thing in enumerate(place.things[2:8])
        }
        task, other = place.chance.sample(sorted(rows), 2)
        find = find_project(project.name)

        def code(thing: str) -> str:
            tasks = 'apis.todoist.show_tasks(project_id=project["project_id"], access_token=todoist_token)'
            choose = f'[t for t in {tasks}["no_section_tasks"] if t["title"] == "buy {thing}"][0]'
            arguments = 'task_id=task["task_id"], is_completed=True, access_token=todoist_token'
            return f"task = {choose}\napis.todoist.update_task({arguments})"

        start = login("todoist")
        return Problem(
            values={"task": task, "project": project.name},
            steps=[start, f"{find}\nprint(project)", code(task)],
            wrong=join(start, find, code(other)),
            twice=join(start, find, code(task), code(other)),
            changes={"todoist.Task": Change(updated={rows[task].id: {"is_completed": True}})},
        )


def furnish(place: Place, name: str) -> Any:
    """Give me a project and return it."""
    mine = place.user("todoist").id
    project = place.add("todoist.Project", user_id=mine, name=name)
    place.add("todoist.ProjectCollaboratorLink", project_id=project.id, user_id=mine)
    return project


def find_project(name: str) -> str:
    """Return the code that finds a project by its name."""
    find = f'apis.todoist.show_projects(query="{name}", access_token=todoist_token)'
    return f'project = [p for p in {find} if p["name"] == "{name}"][0]'

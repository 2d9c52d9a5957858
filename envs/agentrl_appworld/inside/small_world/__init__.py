"""A small world of our own: people, things and tasks, made from AppWorld's own app code.

    python -m small_world ROOT [--seed 0]

`words` has people and things, of which no two splits share one; `scenario` says what a kind of task is, and
`kinds` holds them; `checks` turns what a task asks for into AppWorld's evaluation; `base` and `tasks` write
databases and tasks in AppWorld's layout; `build` puts them together. What they write derives from AppWorld's
code: it belongs on the user's machine and into no repository.
"""

# AppWorld must know its root folder before it is imported; so nothing is imported here.

"""The world of forms. Runs in its own virtual environment: it imports pydantic 1 and no agentrl.

Each episode has a process of its own, so what it has to remember stands in variables of this module.
"""

from pydantic import BaseModel, ValidationError, validator

wanted = {}
attempts = 0
accepted = False


class Person(BaseModel):
    """A form. Validators like these are what pydantic 2 has taken leave of."""

    name: str
    age: int

    @validator("age")
    def is_old_enough(cls, age):  # noqa: N805 - pydantic makes a class method of it
        """Refuse children."""
        if age < 18:
            raise ValueError("must be at least 18")
        return age


def reset(task, seed, config):
    """Hand out a form."""
    global wanted, attempts
    wanted, attempts = task["data"], config["attempts"]
    return f'Form for {wanted["name"]}, {wanted["age"]} years old. Answer as {{"name": ..., "age": ...}}'


def step(action):
    """Take a form back."""
    global attempts, accepted
    attempts -= 1
    try:
        person = Person.parse_raw(action["text"])
    except ValidationError as error:
        faults = "; ".join(f"{'/'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return {"text": f"Not accepted: {faults[:200]}", "done": attempts == 0}
    accepted = person.dict() == wanted
    return {
        "text": "Thank you." if accepted else "These are not the data.",
        "done": accepted or attempts == 0,
    }


def judge():
    """Say whether the form was filled in rightly."""
    return {"success": accepted, "metrics": {"attempts_left": attempts}}

"""Set an alarm."""

from ..scenario import Change, Place, Problem, Scenario, login
from ..words import time_of_day


class Alarm(Scenario):
    """Create an alarm with a time and a label."""

    name = "alarm"
    apps = ("phone",)
    difficulty = 1
    wordings = (
        'Set an alarm on my phone ({time}), labelled "{label}".',
        'Create a phone alarm ({time}) with the label "{label}".',
        'I need an alarm ({time}). Label it "{label}".',
    )

    def pose(self, place: Place) -> Problem:
        """Give me other alarms already."""
        mine = place.user("phone").id
        label, *others = place.things[:4]
        for other in others:
            place.add("phone.Alarm", user_id=mine, time=time_of_day(place.chance), label=other, enabled=True)
        time, later = time_of_day(place.chance), "23:55"

        def code(at: str) -> str:
            arguments = f'time="{at}", label="{label}", enabled=True, access_token=phone_token'
            return f"apis.phone.create_alarm({arguments})"

        start = login("phone")
        asked = {"user_id": mine, "time": time, "label": label, "enabled": True}
        row = {**asked, "repeat_days": None, "snooze_minutes": 15, "vibration": True}
        return Problem(
            values={"time": time, "label": label},
            steps=[start, code(time)],
            wrong=f"{start}\n{code(later)}",
            twice=f"{start}\n{code(time)}\n{code(later)}",
            changes={"phone.Alarm": Change(added=[row])},
        )

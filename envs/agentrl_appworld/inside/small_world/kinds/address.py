"""Tell what is known about an address of one's own."""

from ..scenario import Place, Problem, Scenario, join
from ..words import CITIES


class Address(Scenario):
    """Look up the city, street or zip code of the home or work address."""

    name = "address"
    apps = ("supervisor",)
    difficulty = 1
    wordings = (
        "What is the {what} of my {which} address?",
        "Tell me the {what} of my {which} address.",
        "I forgot the {what} of my {which} address. What is it?",
    )

    def pose(self, place: Place) -> Problem:
        """Give me two addresses and ask for one field of one of them."""
        chance = place.chance
        cities, streets = chance.sample(CITIES, 2), chance.sample(place.things, 2)
        rows = {
            name: place.add(
                "supervisor.Address",
                supervisor_id=place.models.supervisor.Supervisor.first().id,
                name=name,
                street_address=f"{chance.randrange(1, 90)} {street.title()} Street",
                city=city,
                state="Ohio",
                country="United States",
                zip_code=chance.randrange(10_000, 99_999),
            )
            for name, city, street in zip(("Home", "Work"), cities, streets, strict=True)
        }
        which, other = chance.sample(("Home", "Work"), 2)
        what, field = chance.choice(
            (("city", "city"), ("street", "street_address"), ("zip code", "zip_code"))
        )

        def code(name: str) -> str:
            return f'found = addresses["{name}"]["{field}"]'

        return Problem(
            values={"what": what, "which": which.lower()},
            steps=[FIND, code(which)],
            wrong=join(FIND, code(other)),
            twice=join(FIND, code(which), "found = str(found) + str(found)"),
            answer=getattr(rows[which], field),
            answer_code="found",
        )


FIND = 'addresses = {a["name"]: a for a in apis.supervisor.show_addresses()}'

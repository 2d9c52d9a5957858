"""Words that tasks are made of. Short and common, so that a small model has few to know."""

ROOMS = ("Oak", "Elm", "Fir", "Ash", "Bay", "Yew", "Fig", "Ivy")
PEOPLE = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ian", "Joy", "Kai", "Lea", "Max", "Nia",
    "Otto", "Pia", "Ravi", "Sue", "Tom", "Uma", "Vera", "Will", "Xena", "Yann", "Zoe",
)  # fmt: skip
FAMILIES = ("Bell", "Cole", "Dean", "Ford", "Gray", "Hall", "King", "Lane", "Moss", "Park", "Reed", "Wood")
THINGS = (
    "apple", "book", "bottle", "bread", "candle", "clock", "coin", "cup", "egg", "hammer", "key", "knife",
    "lamp", "letter", "pen", "phone", "plate", "ring", "rope", "spoon", "towel",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink")
STREETS = (
    "Mill Lane",
    "High Street",
    "Church Road",
    "Park Avenue",
    "River Walk",
    "Station Road",
    "Elm Street",
)
CITIES = ("Rome", "Paris", "Berlin", "Oslo", "Madrid", "Vienna", "Lisbon", "Dublin", "Prague", "Athens")

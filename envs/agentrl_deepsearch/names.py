"""The people of the built-in encyclopedia: two-word names, divided among the splits.

Every name is one first and one last name, each a single word. Which split a *pair* belongs to is
decided by a stable hash, so no person of one split exists in another, while every word occurs in all.
"""

import hashlib
from functools import cache

RELATIONS = ("mentor", "rival", "cousin", "partner", "doctor", "neighbour")

FIRST = tuple(
    """
    Ada Adele Agnes Alba Alice Alma Amber Amos Anders Andrea Anita Anton Arlo Arthur Asha Astrid Audrey
    August Aurora Axel Basil Beatrix Bella Benno Bertha Bianca Boris Bram Bruno Camila Carla Caspar Cecil
    Celia Cesar Chloe Clara Conrad Cora Cyrus Dagmar Daisy Dalia Damian Daphne Daria Delia Dexter Diego
    Dmitri Dora Duncan Edda Edgar Edith Edwin Elena Elias Elise Ella Elmer Elsa Emil Emma Enzo Erik Erna
    Esther Ethan Eva Ezra Fabian Felix Fergus Fiona Flora Floyd Frida Fritz Gabriel Gemma Gideon Gilda
    Gloria Greta Gustav Hana Hanno Harold Harriet Hattie Hazel Hector Hedda Helena Henrik Hilda Homer
    Horace Hugo Ida Igor Imogen Ines Ingrid Irene Iris Isaac Isabel Ivan Ivo Jasper Jelena Jerome Joanna
    Jonas Josef Judith Julia Julius Kaspar Katia Klara Klaus Lars Laura Leander Leon Leona Lewis Lidia
    Linus Livia Lorenz Lotte Lucia Ludwig Luisa Luther Mabel Magnus Malik Marcel Margot Marius Martha
    Matilda Maurice Maxim Milan Milo Mina Mira Mona Morris Nadia Naomi Nestor Nina Noah Nora Norman Oda
    Odette Olaf Olga Olive Omar Oscar Otto Paloma Pavel Pedro Petra Philip Phoebe Quentin Rafael Ramona
    Regina Rhea Roland Rosa Rufus Ruth Salma Samson Selma Sigrid Silas Simone Sofia Stella Sven Sylvia
    Tamara Thea Theo Tilda Tobias Ulrich Ursula Vera Victor Viola Walter Wanda Xenia Yara Yusuf Zelda
    """.split()  # noqa: SIM905 - a list of words is easier to read
)  # fmt: skip

LAST = tuple(
    """
    Abbott Acker Alder Archer Arnold Ashby Atwood Bailey Baker Banks Barker Barlow Barton Becker Bennet
    Benson Berger Birch Bishop Blackwell Blake Bolton Bowen Bradley Brandt Briggs Brook Brunner Buckley
    Burton Butler Byrne Calder Campbell Carver Chandler Clayton Cobb Coleman Conway Cooper Crane Crosby
    Curtis Dalton Davenport Dawson Decker Denton Dixon Doyle Draper Drummond Dudley Eaton Eckert Elliott
    Ellis Engel Everett Farrell Faulkner Fenwick Finch Fischer Fletcher Forbes Foster Fowler Frost Fuller
    Gallagher Garner Gibson Glover Goodwin Graham Granger Griffin Gruber Haas Hale Hammond Harding Harlow
    Hartman Hawkins Hayes Heller Henson Hewitt Hill Hobbs Hoffman Holloway Hooper Hudson Huxley Ingram
    Irving Jackson Janssen Jarvis Jensen Keller Kemp Kendall Kessler Kirby Klein Knox Kramer Lambert
    Lancaster Larkin Larsen Lawson Lennox Lindgren Lockwood Lowell Lynch Maddox Malone Marlow Marsh Mason
    Maxwell Mercer Merritt Meyer Miller Monroe Morgan Moss Mueller Nash Neumann Newton Nielsen Nolan
    Norris Oakley Olsen Osborne Palmer Parker Pearson Pemberton Perkins Peters Pierce Porter Potter Powell
    Preston Quigley Quinn Ramsey Reed Reuter Reynolds Richter Rivers Roscoe Rowland Russell Sanders Sawyer
    Schmidt Sears Shelton Shepherd Simmons Sinclair Slater Sloan Sommer Spencer Stanton Steiner Sterling
    Stone Strand Sutton Swanson Sykes Talbot Tanner Thornton Tucker Turner Underwood Vance Vaughn Wagner
    Walsh Warden Weaver Webster Wheeler Whitaker Wilder Winslow Yates Zimmer
    """.split()  # noqa: SIM905 - a list of words is easier to read
)  # fmt: skip


def split_of(first: str, last: str) -> str:
    """Return the split to which a person belongs: 80% train, 10% dev, 10% test."""
    bucket = hashlib.sha256(f"{first} {last}".encode()).digest()[0] % 10
    return {8: "dev", 9: "test"}.get(bucket, "train")


@cache
def people(split: str) -> tuple[str, ...]:
    """Return the names of everyone in a split, in a fixed order."""
    pairs = ((first, last) for first in FIRST for last in LAST)
    return tuple(f"{first} {last}" for first, last in pairs if split_of(first, last) == split)

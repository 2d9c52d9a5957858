"""Add a song to the library."""

from datetime import datetime

from ..scenario import Change, Place, Problem, Scenario, login
from ..words import LAST_NAMES


class SongSave(Scenario):
    """Find a song by its title and put it into the song library."""

    name = "song"
    apps = ("spotify",)
    difficulty = 2
    wordings = (
        'Add the song "{title}" to my Spotify library.',
        'Save "{title}" to my song library on Spotify.',
        'I like the song "{title}". Put it into my Spotify song library.',
    )

    def pose(self, place: Place) -> Problem:
        """Publish songs; some are in my library already."""
        mine = place.user("spotify").id
        chance = place.chance
        artist = place.add("spotify.Artist", name=f"The {chance.choice(LAST_NAMES)}s", genre="pop")
        songs = {
            title: place.add(
                "spotify.Song",
                title=title.title(),
                artist_ids=[artist.id],
                duration=chance.randrange(120, 300),
                release_date=datetime(2015 + chance.randrange(8), 5, 4),
                genre="pop",
            )
            for title in place.things[:10]
        }
        for title in place.things[:4]:
            place.add("spotify.UserLibrarySong", user_id=mine, song_id=songs[title].id)
        wanted, other = (songs[title] for title in chance.sample(place.things[4:10], 2))

        def code(title: str) -> str:
            find = f'apis.spotify.search_songs(query="{title}", access_token=spotify_token)'
            choose = f'[s for s in {find} if s["title"] == "{title}"][0]'
            arguments = 'song_id=song["song_id"], access_token=spotify_token'
            return f"song = {choose}\napis.spotify.add_song_to_library({arguments})"

        first, second = code(wanted.title).split("\n")
        start = login("spotify")
        row = {"user_id": mine, "song_id": wanted.id}
        return Problem(
            values={"title": wanted.title},
            steps=[start, f"{first}\nprint(song)", second],
            wrong=f"{start}\n{code(other.title)}",
            twice=f"{start}\n{code(wanted.title)}\n{code(other.title)}",
            changes={"spotify.UserLibrarySong": Change(added=[row])},
        )

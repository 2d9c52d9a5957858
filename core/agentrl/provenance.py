"""Says where an installed distribution came from, as its installer has noted it (PEP 376 and PEP 610)."""

import json
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

UNKNOWN = "unknown: whoever put it there left no note"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who installed a distribution, and from where.

    `installer` is "pip", say; "" if it left no note. `source` is a sentence for people; `editable` says that
    the files in a folder of somebody's are what is imported.
    """

    installer: str
    source: str
    editable: bool = False

    def __str__(self) -> str:
        """Return both in a few words."""
        return f"{self.installer}: {self.source}" if self.installer else self.source


def provenance_of(distribution: Distribution | None) -> Provenance:
    """Return where a distribution came from."""
    if distribution is None:
        return Provenance("", UNKNOWN)
    installer = (distribution.read_text("INSTALLER") or "").strip()
    direct = _direct_url(distribution)
    if direct:
        editable = bool(direct.get("dir_info", {}).get("editable"))
        return Provenance(installer, _source(direct, editable=editable), editable)
    if not installer:
        return Provenance("", f"{UNKNOWN}, in {_folder(distribution)}")
    return Provenance(installer, "a package index, or a folder of wheels")


def _direct_url(distribution: Distribution) -> dict[str, Any]:
    """Return the note on what was installed by its address; {} if it was installed by name."""
    try:
        noted = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:  # a note that cannot be read is as good as none
        return {}
    return noted if isinstance(noted, dict) and isinstance(noted.get("url"), str) else {}


def _source(direct: dict[str, Any], *, editable: bool) -> str:
    url = urlsplit(direct["url"])
    place = unquote(url.path) if url.scheme == "file" else without_password(direct["url"])
    if "vcs_info" in direct:
        commit = str(direct["vcs_info"].get("commit_id", ""))[:12]
        return f"{direct['vcs_info'].get('vcs', '')}+{place} at {commit}"
    if "dir_info" in direct:
        return f"editable, {place}" if editable else f"a copy of {place}"
    return place


def without_password(url: str) -> str:
    """Return an address without the name and password that it may have in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _folder(distribution: Distribution) -> Path:
    return Path(str(distribution.locate_file("")))

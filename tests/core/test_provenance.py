"""Where a distribution came from is read from what its installer noted."""

import json
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from agentrl.provenance import provenance_of

Install = Callable[..., Path]


def noted(install: Install, installer: str | None, direct: Any = None) -> str:
    """Install a distribution with these notes; return what is said of it."""
    site = install("shop", {}, modules={})
    folder = site / "shop-1.0.dist-info"
    if installer is not None:
        (folder / "INSTALLER").write_text(f"{installer}\n")
    if direct is not None:
        (folder / "direct_url.json").write_text(direct if isinstance(direct, str) else json.dumps(direct))
    return str(provenance_of(distribution("shop"))).replace(str(site), "SITE")


@pytest.mark.parametrize(
    ("direct", "said"),
    [
        (None, "pip: a package index, or a folder of wheels"),
        ({"url": "file:///my%20code/shop", "dir_info": {"editable": True}}, "pip: editable, /my code/shop"),
        ({"url": "file:///code/shop", "dir_info": {}}, "pip: a copy of /code/shop"),
        ({"url": "file:///code/shop.whl", "archive_info": {}}, "pip: /code/shop.whl"),
        ({"url": "https://me:word@example.org/s.whl", "archive_info": {}}, "pip: https://example.org/s.whl"),
        (
            {
                "url": "https://example.org/shop",
                "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef", "requested_revision": "main"},
            },
            "pip: git+https://example.org/shop at 0123456789ab",
        ),
        ("not json", "pip: a package index, or a folder of wheels"),
    ],
)
def test_what_pip_noted_is_said(install: Install, direct: Any, said: str) -> None:
    assert noted(install, "pip", direct) == said


def test_another_installer_is_named_and_none_is_admitted(install: Install) -> None:
    assert noted(install, "uv") == "uv: a package index, or a folder of wheels"


def test_what_nobody_noted_is_said_to_be_unknown_with_its_folder(install: Install) -> None:
    assert noted(install, None) == "unknown: whoever put it there left no note, in SITE"

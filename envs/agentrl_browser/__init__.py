"""A fast browser for envs that are played in web pages: a library, and no env by itself.

`BrowserEnv` is the base of such envs, and `View` what their experts read observations with. Below them:
`actions` (what an agent can write), `perform` (doing it), `page` (one context, closed off), `site` (what the
page can reach), `clock` (virtual time), `browser` (one for all episodes), `protocol` and `chromium` (talking
to it, starting and ending it), and `walker.js`, which runs in the pages.
"""

from .actions import ACTIONS, Call, NotAnAction, help_text, parse, tool_schemas
from .browser import Lease, lease
from .chromium import find_executable
from .env import SYSTEM, BrowserConfig, BrowserEnv, Scene
from .page import Page, PageOptions, Snapshot
from .perform import Performed, perform
from .protocol import BrowserGone, ProtocolError
from .reading import Element, View
from .site import DELAY, Request, Response, Site

__all__ = [
    "ACTIONS",
    "DELAY",
    "SYSTEM",
    "BrowserConfig",
    "BrowserEnv",
    "BrowserGone",
    "Call",
    "Element",
    "Lease",
    "NotAnAction",
    "Page",
    "PageOptions",
    "Performed",
    "ProtocolError",
    "Request",
    "Response",
    "Scene",
    "Site",
    "Snapshot",
    "View",
    "find_executable",
    "help_text",
    "lease",
    "parse",
    "perform",
    "tool_schemas",
]

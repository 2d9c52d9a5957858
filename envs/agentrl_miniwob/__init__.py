"""MiniWoB++ (Liu et al., 2018, arXiv 1802.08802): 130 small web pages, each with a goal drawn from a seed.

The package `miniwob` ships the pages; no server of it is used, and nothing of it is imported. An episode
succeeds only with the page's full raw reward: partial credit, and what the page takes off for time, are kept
apart. `pages` finds and serves the pages, `experts` shows how some are solved, `reading` is how an expert
sees.
"""

from .env import MiniWoB

__all__ = ["MiniWoB"]

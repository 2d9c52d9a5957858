"""Lets `python -m agentrl` do what `agentrl` does."""

from agentrl.cli import main

main()

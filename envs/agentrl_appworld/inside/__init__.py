"""What runs in AppWorld's own interpreter: the small world, the episode worker and the judge.

Nothing here imports agentrl: this folder is put on the module path of a Python that has `appworld`, and no
agentrl.
"""

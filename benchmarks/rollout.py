"""How fast are episodes played? The rollout phase of a step, agentrl and TRL's GRPOTrainer side by side.

    python benchmarks/rollout.py                                   # prompts of 200, 1000 and 4000 tokens
    python benchmarks/rollout.py --prompts 1000 --groups 4 --threads 1 --repeats 5 --json rollout.json

Groups of 8, 6 turns of 32 sampled tokens, observations of 100 tokens. TRL comes with
`pip install -e '.[laptop,bench]'`. On a machine that is not quiet, `--threads 1 --clock cpu`.
"""

import race

if __name__ == "__main__":
    race.run(race.arguments(__doc__ or ""), update=False, parts=["rollout"])

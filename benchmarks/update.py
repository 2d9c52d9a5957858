"""How fast is an update, and a whole step? agentrl and TRL's GRPOTrainer side by side.

    python benchmarks/update.py                                    # prompts of 200, 1000 and 4000 tokens
    python benchmarks/update.py --prompts 200 4000 --groups 2 1 --threads 1 --json update.json

Groups of 8, 6 turns of 32 sampled tokens, observations of 100 tokens; no KL. A step is a rollout and an
update on what it played. TRL comes with `pip install -e '.[laptop,bench]'`. On a machine that is not quiet,
`--threads 1 --clock cpu`. `--profile` shows where agentrl spends its time.
"""

import race

if __name__ == "__main__":
    race.run(race.arguments(__doc__ or ""), update=True, parts=["rollout", "update", "step"])

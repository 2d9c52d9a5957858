r"""A reward that asks a language model whether an answer is right, over any OpenAI-compatible endpoint.

    agentrl run --env deepsearch --reward exact_match --reward llm_judge:0 \
        --set rewards.llm_judge.endpoint=http://127.0.0.1:8000/v1 --set rewards.llm_judge.model=judge

How its rooms fit together: `reward` has the options and the score; `prompts` says what is asked and reads
what is answered; `client` asks, again if need be, and so many at once; `cache` keeps every verdict on disk,
so that the same question is asked once; `audit` leaves a sample of the verdicts in the run's folder, for
people to check. Nothing here imports the HTTP library before the reward starts.
"""

from agentrl_llm_judge.reward import LLMJudge

__all__ = ["LLMJudge"]

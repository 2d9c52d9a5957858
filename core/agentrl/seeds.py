"""Random seeds that depend on what they are for, and on nothing that happened before.

There is no random stream to save or lose: step 57 of a resumed run draws what step 57 of the run that was
never killed would have drawn.
"""

import hashlib


def derive(*parts: int | str) -> int:
    """Return a 62-bit seed for `parts`, such as `derive(run_seed, "train", step, episode)`."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2

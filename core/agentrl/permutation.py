"""An endless random order of any number of things that costs no memory.

The order of an epoch is a keyed permutation that is computed place by place (a Feistel network, with cycle
walking down to the number of things), so a split of a billion generated tasks costs nothing, and all that has
to be remembered is a place.
"""

import hashlib

_ROUNDS = 4


def shuffled(place: int, size: int, seed: int) -> int:
    """Return what stands at `place`, 0 or more, where range(size) comes again and again, always shuffled."""
    epoch, step = divmod(place, size)
    return permute(step, size, f"{seed}/{epoch}")


def permute(index: int, size: int, key: str) -> int:
    """Return where `index` goes in the permutation of range(size) that `key` names."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        index = _encipher(index, half, key)
        if index < size:
            return index


def _encipher(value: int, half: int, key: str) -> int:
    """Permute the numbers of 2 * half bits: a Feistel network whose rounds are hashes."""
    left, right = value >> half, value & ((1 << half) - 1)
    for number in range(_ROUNDS):
        text = f"{key}/{number}/{right}".encode()
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        left, right = right, left ^ (digest & ((1 << half) - 1))
    return left << half | right

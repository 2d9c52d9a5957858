"""How close an answer is to a right one, by an encoder with random weights: what it means is not tested."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentrl import UsageError
from agentrl.plugins import make
from agentrl.testing import make_trajectory
from agentrl.testing.rewards import check_reward
from agentrl_similarity import Similarity

torch = pytest.importorskip("torch", reason="install agentrl's extra 'similarity'")
transformers = pytest.importorskip("transformers", reason="install agentrl's extra 'similarity'")

WORDS = ["[UNK]", "[PAD]", "the", "paris", "rome", "capital", "of", "france", "is", "city", "query", ":"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an encoder of two small layers that knows a few words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder = tmp_path_factory.mktemp("encoder")
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        type_vocab_size=1,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def score(model: Path, answer: str | None, *references: str, **options: Any) -> float:
    async def scored() -> float:
        reward = make("reward", "similarity", {"model": str(model), **options})
        await reward.start(None)
        try:
            return await reward.score(make_trajectory(answer=answer, references=references))
        finally:
            await reward.close()

    return asyncio.run(scored())


def test_it_keeps_the_rules_of_rewards(model: Path) -> None:
    config = Similarity.Config(model=str(model))
    check_reward(partial(Similarity, config), needs_torch=True)


def test_it_is_the_cosine_of_mean_pooled_states(model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encoder = transformers.AutoModel.from_pretrained(model).eval()
    with torch.no_grad():
        texts = ["the capital of France", "Rome"]
        paris, rome = (encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state for text in texts)
    cosine = torch.nn.functional.cosine_similarity(paris.mean(1), rome.mean(1)).item()
    assert score(model, texts[0], texts[1]) == pytest.approx(max(0.0, cosine), abs=1e-5)
    first = torch.nn.functional.cosine_similarity(paris[:, 0], rome[:, 0]).item()
    assert score(model, *texts, pooling="first") == pytest.approx(max(0.0, first), abs=1e-5)


def test_of_several_references_the_closest_counts(model: Path) -> None:
    alone = score(model, "the capital of France", "Rome")
    assert score(model, "the capital of France", "Rome", "the capital of france") == pytest.approx(1)
    assert 0 <= alone < 1


def test_scores_below_the_floor_are_0_and_the_rest_is_stretched(model: Path) -> None:
    plain = score(model, "Paris city", "Rome city")
    assert 0 < plain < 1
    assert score(model, "Paris city", "Rome city", floor=plain / 2) == pytest.approx(
        plain / 2 / (1 - plain / 2)
    )
    assert score(model, "Paris city", "Rome city", floor=(1 + plain) / 2) == 0


@pytest.mark.parametrize(("answer", "references"), [(None, ("Paris",)), ("", ("Paris",)), ("Paris", ())])
def test_nothing_to_compare_is_0(model: Path, answer: str | None, references: tuple[str, ...]) -> None:
    assert score(model, answer, *references) == 0


def test_scores_do_not_depend_on_what_is_scored_beside(model: Path) -> None:
    answers = ["Paris", "Rome", "the city of Paris is the capital of France", "Rome is the city"]

    async def side_by_side() -> list[float]:
        reward = make("reward", "similarity", {"model": str(model)})
        await reward.start(None)
        scores = await asyncio.gather(
            *(reward.score(make_trajectory(answer=answer, references=("the capital",))) for answer in answers)
        )
        await reward.close()
        return list(scores)

    assert asyncio.run(side_by_side()) == [score(model, answer, "the capital") for answer in answers]


def test_a_model_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"embedding model .* cannot be loaded: .*rewards.similarity.model"):
        score(tmp_path, "Paris", "Paris")

"""What the trainer reads and writes: models, tokenizers, and checkpoints from which it resumes to the bit."""

import shutil

import pytest
import torch
from transformers import Qwen2Config

from agentrl import UsageError
from agentrl_torch import checkpoint, loading
from small_training import SIZE, assert_same_bits, make_model, run, trainer_for


def test_training_resumes_to_the_bit(folder, tmp_path):
    options = {"schedule": "cosine", "warmup_steps": 1, "weight_decay": 0.1, "minibatches": 2, "epochs": 2}
    through, resumed = trainer_for(folder, **options), trainer_for(folder, **options)
    run(through, [0, 1])
    through.save(tmp_path / "checkpoint")
    expected = run(through, [2, 3])
    resumed.load(tmp_path / "checkpoint")
    assert run(resumed, [2, 3]) == expected
    assert_same_bits(through.weights(), resumed.weights())


def test_a_checkpoint_of_another_model_is_refused(folder, tmp_path):
    trainer = trainer_for(folder)
    with pytest.raises(UsageError, match=r"lacks weights\.safetensors, optimizer\.pt"):
        trainer.load(tmp_path)
    trainer.save(tmp_path / "checkpoint")
    make_model(Qwen2Config(**{**SIZE, "intermediate_size": 32})).save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match="is of another model"):
        trainer_for(tmp_path / "other").load(tmp_path / "checkpoint")


def test_the_model_that_is_written_is_the_one_that_was_trained(folder, tmp_path):
    trainer = trainer_for(folder)
    run(trainer, [0])
    trainer.save_model(tmp_path / "model")
    again = trainer_for(tmp_path / "model")
    assert_same_bits(trainer.weights(), again.weights())
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_a_tokenizer_that_cannot_be_written_is_an_error_of_the_operating_system(folder, tmp_path):
    (tmp_path / "model" / "tokenizer.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        trainer_for(folder).save_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (RuntimeError("I/O error: No space left on device (os error 28)"), OSError),
        (RuntimeError("something else"), RuntimeError),
        (UsageError("cannot load the tokenizer: No such file (os error 2)"), UsageError),
    ],
)
def test_what_libraries_say_of_a_full_disk_is_an_error_of_the_operating_system(error, found):
    with pytest.raises(found) as caught, checkpoint.as_os_error():
        raise error
    assert caught.type is found
    assert found is not OSError or caught.value.errno == 28


def test_a_damaged_model_is_one_sentence_with_the_remedy(folder, tmp_path):
    copy_of = shutil.copytree(folder, tmp_path / "model")
    weights = copy_of / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for load in (loading.load_model, loading.map_model):
        with pytest.raises(UsageError, match=r"model' is damaged \(.*\); copy it again"):
            load(copy_of, torch.float32, "cpu")
    (copy_of / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer \(tokenizer.json\); copy the model's"):
        loading.load_tokenizer(copy_of)
    (copy_of / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match="cannot load the tokenizer") as caught:
        loading.load_tokenizer(copy_of)
    assert "\n" not in str(caught.value)


def test_tied_weights_are_handed_over_once(tmp_path):
    make_model(Qwen2Config(**SIZE, tie_word_embeddings=True)).save_pretrained(tmp_path)
    names = trainer_for(tmp_path).weights().keys()
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names

"""Little work is done by one thread, and the run's number of threads is there again afterwards."""

import pytest

torch = pytest.importorskip("torch", reason="threads are torch's")


def test_one_thread_decodes_a_small_model_and_all_read_a_long_prompt() -> None:
    from agentrl_torch.threads import enough_threads

    model = torch.nn.Linear(1000, 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with enough_threads(model, 8):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with enough_threads(model, 4096):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    from agentrl_torch.threads import enough_threads

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), enough_threads(torch.nn.Linear(2, 2), 1):
        raise RuntimeError
    assert torch.get_num_threads() == before

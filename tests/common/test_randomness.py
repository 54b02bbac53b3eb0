import torch

from pipeline.common.seeding import derive_seed, generator


def test_words_alone_decide():
    assert derive_seed(0, "train", 1) == derive_seed(0, "train", 1)
    assert torch.equal(torch.rand(4, generator=generator(1, "a")), torch.rand(4, generator=generator(1, "a")))


def test_stays_the_same_in_later_versions():
    # A published run could not be repeated otherwise.
    assert derive_seed(0, "train", 1, "order") == 80099798141840146


def test_any_other_words_give_another_seed():
    words = [(0, 1), (1, 0), ("01",), (0, 1, ""), (10,), ("0", "1", "x")]
    seeds = {derive_seed(*w) for w in words}
    assert len(seeds) == len(words)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=generator("x"))
    assert torch.equal(torch.get_rng_state(), before)

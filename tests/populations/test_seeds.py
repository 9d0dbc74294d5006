import random

from populations.seeds import derive_seed, global_random


def test_seeds_tell_parts_apart_and_the_global_state_is_put_back():
    assert derive_seed(0, "child", 1) != derive_seed(0, "child", 2)
    state = random.getstate()
    with global_random(3):
        first = random.random()
    with global_random(3):
        assert random.random() == first
    assert random.getstate() == state

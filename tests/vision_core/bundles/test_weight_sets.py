import pytest
import torch

from vision_core.bundles.weight_sets import find_sets, is_average

PLAIN = {"layer.weight": torch.zeros(2), "layer.bias": torch.zeros(2)}
OTHER = {"layer.weight": torch.ones(2), "layer.bias": torch.ones(2)}


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict", "net", "ema", "generator_a", "student"])
def test_sets__one_set_is_found_wherever_it_is(name: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    sets = find_sets({name: PLAIN, "optimizer": optimizer, "epoch": 3, "ema_decay": 0.99})
    assert (sets.chosen, list(sets.by_name)) == (name, [name])
    assert sets.tensors.keys() == PLAIN.keys()


@pytest.mark.parametrize(
    ("plain", "average"),
    [
        ("model", "ema"),
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("net", "ema_model"),
        ("params", "params_ema"),
        ("student", "teacher"),
        ("modelStudent", "modelTeacher"),
        ("model", "swa_model"),
        ("model", "averaged_model"),
    ],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_sets__the_average_is_taken(plain: str, average: str, is_nested: bool) -> None:
    sets = find_sets({plain: PLAIN, average: {"module": OTHER, "updates": 7} if is_nested else OTHER})
    assert sets.chosen == average
    assert sets.has_choice
    assert torch.equal(sets.tensors["layer.weight"], OTHER["layer.weight"])
    assert find_sets({plain: PLAIN, average: OTHER}, (plain,)).chosen == plain


def test_sets__both_below_one_name() -> None:
    sets = find_sets({"model": {"student": PLAIN, "teacher": OTHER}})
    assert sets.chosen == "model.teacher"
    assert sets.names() == "'model.student', 'model.teacher'"


FLAT = {**PLAIN, "norm.mean": torch.zeros(2), "ema_layer_weight": torch.ones(2), "ema_layer_bias": torch.ones(2)}


@pytest.mark.parametrize(("place", "name"), [("state_dict", "state_dict.ema"), ("", "ema")])
def test_sets__an_average_beside_the_weights_by_flat_names_is_taken(place: str, name: str) -> None:
    sets = find_sets({place: FLAT} if place else FLAT)
    assert (sets.chosen, sets.names(), sets.is_chosen_averaged) == (name, f"'{place}', '{name}'", True)
    assert sets.tensors.keys() == {"layer.weight", "layer.bias", "norm.mean"}
    assert torch.equal(sets.tensors["layer.weight"], torch.ones(2))
    assert torch.equal(sets.tensors["norm.mean"], torch.zeros(2))
    assert sets.by_name[place].keys() == sets.tensors.keys()
    assert torch.equal(sets.by_name[place]["layer.weight"], torch.zeros(2))


@pytest.mark.parametrize(
    "content",
    [
        {"meta": {"mmcv_version": "1.7.1"}, "state_dict": FLAT},
        {
            "meta": {"mmengine_version": "0.10"},
            "state_dict": PLAIN,
            "ema_state_dict": {f"module.{k}": v for k, v in OTHER.items()},
        },
    ],
)
def test_sets__programs_that_save_the_average_under_the_networks_names(content: dict[str, object]) -> None:
    """Their hooks exchange both before they save."""
    sets = find_sets(content)
    assert (sets.chosen, sets.is_chosen_averaged, sets.has_choice) == ("state_dict", True, True)
    assert torch.equal(sets.tensors["layer.weight"], torch.zeros(2))


def test_sets__settings_of_an_average_are_none() -> None:
    assert (
        find_sets({"model": {str(n): torch.ones(1) for n in range(9)}, "ema": {"d": torch.ones(1)}}).chosen == "model"
    )


def test_sets__the_file_itself() -> None:
    assert find_sets({**PLAIN, "hyper_parameters": {"mean": torch.ones(3)}}).chosen == ""
    assert find_sets({"model": PLAIN, "queue": torch.ones(3)}).chosen == "model"
    assert find_sets([PLAIN]).tensors == {}
    assert find_sets({"epoch": 3}).tensors == {}


@pytest.mark.parametrize("name", ["gemma", "schema", "model", "avgpool_net", "semantic"])
def test_is_average__not_by_letters_within_a_word(name: str) -> None:
    assert not is_average(name)

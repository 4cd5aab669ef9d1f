"""Ensembles: networks of runs that differ in seed or fold alone, as one bundle that averages their probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.ultrasound.data.sector.known import sectors_of_card
from pipelines.ultrasound.screening.scope_guard import MEMBERS
from pipelines.ultrasound.weights.bundles import Network, load_network, save_networks
from vision_core.bundles.card import Card
from vision_core.config.loading import fingerprint
from vision_core.errors import CheckpointError
from vision_core.runs.folder import RunFolder
from vision_core.runs.repeats import experiment_of

ENSEMBLE = "ensemble"  # folder name, beside the run folders


def save_ensembles(runs: Mapping[str, Path]) -> dict[Path, list[str]]:
    """Write a bundle of every experiment that has several runs, beside their folders.

    Args:
        runs: Run folders by name, such as ``screen-seed-1`` or ``seed-0-fold-2``.

    Returns:
        Names of the runs by bundle.
    """
    groups: dict[str, list[str]] = {}
    for name in runs:
        groups.setdefault(experiment_of(name), []).append(name)
    made = {}
    for experiment, names in groups.items():
        if len(names) > 1:
            folder = runs[names[0]].parent / f"{experiment}-{ENSEMBLE}".removeprefix("-")
            save_ensemble(folder, {name: RunFolder(runs[name]).model for name in names})
            made[folder] = names
    return made


def save_ensemble(folder: Path, bundles: Mapping[str, Path]) -> Card:
    """Write networks of one architecture as a bundle, whose probability is the mean of theirs.

    Args:
        folder: The new bundle.
        bundles: Theirs by the names of the runs.

    Raises:
        CheckpointError: One of them has another architecture, or is no sound bundle of this task.
    """
    loaded = {name: load_network(path) for name, path in bundles.items()}
    cards = [each.card for each in loaded.values()]
    first = cards[0]
    for name, each in loaded.items():
        if (each.card.architecture, _own(each.card)) != (first.architecture, _own(first)):
            raise CheckpointError(
                f"'{bundles[name]}' has another architecture than '{next(iter(bundles.values()))}': their "
                "probabilities are not averaged. Give networks of the same settings."
            )
    networks: list[Network] = [network for each in loaded.values() for network in each.model.networks]
    return save_networks(folder, networks, _card(cards, list(bundles)))


def _card(cards: Sequence[Card], names: Sequence[str]) -> Card:
    first = cards[0]
    data = {**first.config.get("data", {}), "fold": None}
    told = f"Mean of the probabilities of {len(cards)} networks ({', '.join(names)}); of the first: "
    manifests = list(dict.fromkeys(each.trained_on.manifest for each in cards))
    trained_on = first.trained_on.model_copy(
        update={
            "description": told + first.trained_on.description,
            "synthetic": all(each.trained_on.synthetic for each in cards),
            "manifest": manifests[0] if len(manifests) == 1 else fingerprint(manifests),
        }
    )
    scopes = [each.scope for each in cards]
    sectors = {(each.machine, each.size): each.to_record() for card in cards for each in sectors_of_card(card)}
    return first.model_copy(
        update={
            "config": {**first.config, "data": data},
            "architecture": {**first.architecture, MEMBERS: [each.identity() for each in cards]},
            "preprocessing": _own(first) | ({"sectors": list(sectors.values())} if sectors else {}),
            "trained_on": trained_on,
            "metrics": {},  # those of the first are not theirs
            "calibration": None,
            "scope": {MEMBERS: scopes} if all(scopes) else None,
        }
    )


def _own(card: Card) -> dict[str, Any]:
    """Take the preprocessing that members must share: of sectors, each fold has seen those of its machines."""
    return {name: value for name, value in card.preprocessing.items() if name != "sectors"}

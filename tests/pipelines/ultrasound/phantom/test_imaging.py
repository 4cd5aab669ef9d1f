import math
from dataclasses import replace

import numpy as np
import pytest

from pipelines.ultrasound.phantom.imaging import (
    Floats,
    Scatterers,
    Tissue,
    blurred,
    compressed,
    envelope,
    raster,
    scan_converted,
    wide_steps,
)
from pipelines.ultrasound.phantom.machines import OTHER, TRAINING, Machine, drawn

MACHINES = pytest.mark.parametrize("machine", [TRAINING, OTHER], ids=["sector", "linear"])


def homogeneous(machine: Machine, db_cm_mhz: float = 0.0) -> Tissue:
    shape = (len(machine.ranges) // 4, len(wide_steps(machine)))
    loss = np.full(shape, db_cm_mhz * machine.frequency_mhz / 10, np.float32)
    return Tissue(echo_db=np.zeros(shape, np.float32), loss_db_mm=loss)


def speckle(machine: Machine, place: float = 0.0, seed: int = 1) -> Floats:
    return envelope(machine, homogeneous(machine), Scatterers(machine, seed).at(place))


def correlation(one: Floats, other: Floats) -> float:
    """Correlation of intensities, the square of that of the echoes."""
    return float(np.corrcoef((one**2).ravel(), (other**2).ravel())[0, 1])


@MACHINES
def test_envelope__speckle_follows_rayleigh(machine: Machine) -> None:
    signal = speckle(machine)
    assert signal.mean() / signal.std() == pytest.approx(1.91, abs=0.1)
    assert (signal**2).mean() == pytest.approx(1, abs=0.08)
    depths = np.array_split(signal, 4)
    assert all((each**2).mean() == pytest.approx(1, abs=0.15) for each in depths)  # the beam's width keeps the power


@MACHINES
def test_blurred__a_point_is_as_wide_as_the_beam_and_as_long_as_the_pulse(machine: Machine) -> None:
    ranges, steps = machine.ranges, wide_steps(machine)
    middle, found = len(steps) // 2, []
    rows = [len(ranges) // 8, len(ranges) // 2, len(ranges) - 60]
    for row in rows:
        field = np.zeros((len(ranges), len(steps)), np.complex64)
        field[row, middle] = 1
        power = np.abs(blurred(machine, field)) ** 2
        step_mm = (steps[1] - steps[0]) * (machine.face_mm + ranges[row] if machine.geometry == "sector" else 1)
        offsets = (np.arange(len(steps)) - middle) * step_mm
        across = power[row] / power[row].sum()
        found.append(math.sqrt(2 * (across * offsets**2).sum()))  # power is half as wide squared as amplitude
        along = power[:, middle] / power[:, middle].sum()
        pulse = math.sqrt(2 * (along * (ranges - ranges[row]) ** 2).sum())
        assert pulse == pytest.approx(machine.pulse_mm, rel=0.05)
    assert found == pytest.approx(machine.beam_mm(ranges[rows]).tolist(), rel=0.05)
    assert found[2] > 1.2 * found[1]


@MACHINES
def test_blurred__speckle_grows_wider_beyond_the_focus(machine: Machine) -> None:
    def width(rows: slice) -> float:
        field = speckle(machine)[rows] ** 2
        lags = [correlation(np.sqrt(field[:, :-lag]), np.sqrt(field[:, lag:])) for lag in (1, 2, 3)]
        return sum(lags)

    linear = replace(machine, geometry="linear", width=60.0)  # so that a beam is as wide in mm at every range
    machine = linear
    focus = int(machine.focus_mm / machine.depth_mm * len(machine.ranges))
    assert width(slice(-100, None)) > 1.3 * width(slice(focus - 50, focus + 50))


@MACHINES
@pytest.mark.parametrize("db_cm_mhz", [0.4, 0.7])
def test_envelope__attenuation_is_recovered(machine: Machine, db_cm_mhz: float) -> None:
    signal = envelope(machine, homogeneous(machine, db_cm_mhz), Scatterers(machine, 2).at(0))
    decibels = 10 * np.log10((signal**2).mean(axis=1))
    slope = np.polyfit(machine.ranges / 10, decibels, 1)[0]  # there and back
    assert -slope / 2 / machine.frequency_mhz == pytest.approx(db_cm_mhz, rel=0.1)


def test_envelope__noise_is_what_remains_of_deep_tissue() -> None:
    tissue = homogeneous(TRAINING, 3.0)
    field = Scatterers(TRAINING, 2).at(0)
    deep = envelope(TRAINING, tissue, field, noise_seed=5)[-100:]
    assert 10 * np.log10((deep**2).mean()) == pytest.approx(TRAINING.noise_db, abs=1)
    assert not np.array_equal(deep, envelope(TRAINING, tissue, field, noise_seed=6)[-100:])


@MACHINES
def test_scatterers__speckle_decorrelates_as_the_probe_moves_across_the_image(machine: Machine) -> None:
    first = speckle(machine)
    for moved in (0.4, 0.9, 1.5, 3.5):  # in thicknesses of the slice
        found = correlation(first, speckle(machine, moved * machine.slice_mm))
        assert found == pytest.approx(math.exp(-(moved**2)), abs=0.06)


def test_scatterers__speckle_moves_with_the_tissue_in_the_plane() -> None:
    scatterers = Scatterers(TRAINING, 1)
    still, moved = scatterers.at(0), scatterers.at(0, (5, 3))
    assert np.array_equal(moved[:-5, :-3], still[5:, 3:])


def test_scatterers__a_plane_does_not_depend_on_those_seen_before() -> None:
    one, other = Scatterers(TRAINING, 1), Scatterers(TRAINING, 1)
    for place in (0.0, 3.0, 60.0, 3.1):
        one.at(place)
    assert np.array_equal(one.at(7.7), other.at(7.7))
    assert not np.array_equal(one.at(7.7), Scatterers(TRAINING, 2).at(7.7))


@MACHINES
def test_compressed__the_dynamic_range_lies_between_black_and_white(machine: Machine) -> None:
    flat = replace(machine, gain_db=0.0, tgc_db_cm=0.0, gamma=1.0)
    decibels = np.linspace(-60, 60, 2401, dtype=np.float32)
    grey = compressed(flat, np.tile(10 ** (decibels / 20), (len(flat.ranges), 1)))[0]
    between = decibels[(grey > 0) & (grey < 1)]
    assert np.ptp(between) == pytest.approx(machine.dynamic_range_db, abs=0.2)
    assert (np.diff(grey) >= 0).all()


def test_drawn__every_subject_has_from_fifty_to_seventy_decibels() -> None:
    machines = [drawn(preset, np.random.default_rng(seed)) for preset in (TRAINING, OTHER) for seed in range(100)]
    assert all(50 <= each.dynamic_range_db <= 70 for each in machines)
    assert len({each.frequency_mhz for each in machines}) == 200


@MACHINES
def test_positions__samples_are_their_inverse(machine: Machine) -> None:
    x, y = machine.positions(machine.ranges[::50, None], machine.steps[::9])
    ranges, steps = machine.samples(x, y)
    assert np.abs(ranges - machine.ranges[::50, None]).max() < 1e-4
    assert np.abs(steps - machine.steps[::9]).max() < 1e-4


@MACHINES
def test_scan_converted__a_bright_place_lies_where_the_geometry_says(machine: Machine) -> None:
    row, beam = len(machine.ranges) // 2, machine.beams // 2 + 20
    grey = np.zeros((len(machine.ranges), machine.beams), np.float32)
    grey[row - 4 : row + 5, beam - 2 : beam + 3] = 1
    pixels = raster(machine, (200, 240))
    image = scan_converted(machine, grey, pixels).astype(float)
    found = [(image * each).sum() / image.sum() for each in (pixels.x, pixels.y)]
    x, y = machine.positions(machine.ranges[[row], None], machine.steps[[beam]])
    assert found == pytest.approx([x.item(), y.item()], abs=pixels.spacing_mm)
    assert not image[~pixels.inside].any()
    assert np.diff(pixels.x[0])[0] == pytest.approx(pixels.spacing_mm, rel=1e-4)


def test_raster__the_field_is_whole_in_depth() -> None:
    sector = raster(TRAINING, (128, 128))
    assert sector.inside[:, 64].sum() * sector.spacing_mm == pytest.approx(TRAINING.depth_mm, abs=2 * sector.spacing_mm)
    assert not sector.inside[0].any()
    assert 0.3 < sector.inside.mean() < 0.8

"""The paper's figures: their numbers, files and exponents."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from optsched import InvalidProblem, Problem, solve
from optsched.cli import main
from optsched.plots.figures import plot_panel, plot_paper_figure
from optsched.studies import figures
from optsched.studies.figures import FIGURES, reproduce
from optsched.studies.paper import Curve, Panel, PaperFigure


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")


@pytest.fixture(scope="module")
def fig3() -> PaperFigure:
    return reproduce("fig3")


def _curves(panel: Panel) -> dict[str, Curve]:
    return {one.name: one for one in panel.curves}


def test_bias_and_variance_add_up(fig3: PaperFigure) -> None:
    for bias, variance, excess in fig3.panels:
        for name, whole in _curves(excess).items():
            b, v = _curves(bias)[name], _curves(variance)[name]
            assert b.y[-1] + v.y[-1] == pytest.approx(whole.y[-1], rel=1e-9)
            assert whole.x[-1] == 3162


def test_reference_losses_of_figure_3(fig3: PaperFigure) -> None:
    """Best known losses at T = 3162 (design: found by full-horizon L-BFGS)."""
    for row, best in zip(fig3.panels, (0.00526711, 0.00066197), strict=True):
        finals = {name: one.y[-1] for name, one in _curves(row[2]).items()}
        assert finals["optimal"] == pytest.approx(best, rel=1e-3)
        assert finals["optimal"] < finals["best power law"] < finals["best constant"]


def test_fixed_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIG1_HORIZONS", [100, 1000])
    monkeypatch.setattr(figures, "RATES", np.geomspace(1e-2, 0.6, 15))
    paper = reproduce("fig1b")
    for panel in paper.panels[0]:
        *curves, stars = panel.curves
        # The star is the minimum of its curve, and moves left with the horizon.
        for one, at, low in zip(curves, stars.x, stars.y, strict=True):
            assert low <= one.y.min() * (1 + 1e-6)
            assert abs(np.log(one.x[one.y.argmin()] / at)) < np.log(one.x[1] / one.x[0])
        assert stars.x[1] < stars.x[0]
    for one in paper.exponents:
        assert one.ours == pytest.approx(one.theory, abs=0.02)


@pytest.mark.slow
def test_exponents_of_figure_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 0.02 of what the paper states, at long horizons."""
    monkeypatch.setattr(figures, "FIG2_HORIZONS", [100, 300, 1000])
    monkeypatch.setattr(figures, "FIG2_LONG", [10**7, 10**8, 10**9])
    paper = reproduce("fig2")
    assert len(paper.exponents) == 12
    long = [one for one in paper.exponents if "1e+09" in one.points]
    assert len(long) == 6
    for one in long:
        assert one.ours == pytest.approx(one.paper, abs=0.02), one
        assert one.theory == pytest.approx(one.paper)
    (hard, easy) = (row[0] for row in paper.panels)
    # Hard: the bound, then annealing; easy: the whole schedule comes down with the horizon.
    assert {float(one.y.max()) for one in hard.curves} == {1.0}
    assert np.all(np.diff([one.y.max() for one in easy.curves]) < 0.0)
    (final,) = (one for one in paper.panels[1][2].curves if one.name == "optimal")
    loss = solve(Problem(3.5, 2.0, 300)).excess_loss
    assert final.y[1] == pytest.approx(loss, rel=1e-6)


@pytest.mark.slow
def test_exponents_of_figure_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 0.03 of 1/6; tests/test_compute.py has more."""
    monkeypatch.setattr(figures, "FIG4", ((1.5, 2.0),))
    monkeypatch.setattr(figures, "FIG4_DRAWN", (1e4,))
    monkeypatch.setattr(figures, "FIG4_LONG", (1e9, 1e12))
    paper = reproduce("fig4")
    for one in paper.exponents:
        assert one.ours == pytest.approx(one.theory, abs=0.01), one
        if one.quantity.startswith("loss"):
            assert (one.phase, one.paper) == ("hard", pytest.approx(1 / 6))


@pytest.mark.slow
def test_momentum_of_figure_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIG5_HORIZONS", [30, 100])
    paper = reproduce("fig5")
    final = _curves(paper.panels[0][2])
    assert np.all(final["quasi-hyperbolic"].y <= final["heavy ball"].y * 1.01)
    assert np.all(final["heavy ball"].y < final["SGD"].y)
    assert [*_curves(paper.panels[0][1])] == ["heavy ball", "quasi-hyperbolic"]


def test_command_writes_figure_and_tables(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fig3: PaperFigure,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = replace(fig3, exponents=(figures.Exponent("loss", "easy", 0.7, 0.01, 5 / 7, 0.7, "x"),))
    monkeypatch.setitem(FIGURES, "fig3", lambda told: one)
    folder = tmp_path / "figures"
    assert main(["reproduce", "fig3", "--output", str(folder), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in folder.iterdir()) == [
        "fig3-exponents.csv",
        "fig3.csv",
        "fig3.png",
    ]
    assert out["fig3"]["exponents"][0]["paper"] == pytest.approx(5 / 7)
    with open(folder / "fig3.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{k: str(v) for k, v in row.items()} for row in fig3.rows()]
    # Again: refused before any work, and nothing is touched; with --force done.
    monkeypatch.setitem(FIGURES, "fig3", lambda told: pytest.fail("computed"))
    assert main(["reproduce", "fig3", "--output", str(folder)]) == 2
    assert "fig3.png" in capsys.readouterr().err
    monkeypatch.setitem(FIGURES, "fig3", lambda told: one)
    assert main(["reproduce", "fig3", "--output", str(folder), "--force"]) == 0
    assert "0.7143" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig9", "--output", "x"], "FIGURE: got 'fig9'"),
        (["fig3"], "--output: got nothing"),
        (["fig3", "--output", "file.txt"], "file.txt: is a file"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("mine")
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    with pytest.raises(InvalidProblem, match="figure"):
        reproduce("fig9")


def test_panels_are_drawn(fig3: PaperFigure) -> None:
    ax = Figure().subplots()
    panel = fig3.panels[0][0]
    assert plot_panel(ax, panel) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [*_curves(panel)]
    figure = plot_paper_figure(fig3)
    assert len(figure.axes) == 6
    figure.canvas.draw()

"""Rows of one result that are compared: what each change gives, in words."""

from metarep_jax.report.comparison import describe_gains
from metarep_jax.report.results import Cell


def test_a_gain_is_a_number_where_it_exceeds_chance_and_parameters_are_none():
    cells = {
        row: {"5w1s": Cell(mean=mean, ci95=0.5, n=100), "parameters": Cell(mean=size, ci95=None, n=1)}
        for row, mean, size in [("teacher", 90.0, 9), ("student", 88.0, 3), ("twin", 90.4, 9)]
    }
    cells["teacher"]["20w1s"] = Cell(mean=70.0, ci95=1.0, n=100)
    assert describe_gains(cells, {"The student": ("student", "teacher"), "The twin": ("twin", "teacher")}) == [
        "The student (student against teacher): -2.0 points on 5w1s.",
        "The twin (twin against teacher): no measurable difference on 5w1s.",
    ]

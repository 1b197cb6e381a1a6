"""Small real tables for examples and tests; `SOURCES.md` beside them says where each comes from."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd


def penguins() -> pd.DataFrame:
    """The Palmer penguins: 344 rows, with the table's own missing cells (Gorman et al. 2014, CC0).

    Returns
    -------
    pandas.DataFrame
        species, island, bill_length_mm, bill_depth_mm, flipper_length_mm, body_mass_g, sex, year.

    Examples
    --------
    >>> from bayesmix.datasets import penguins
    >>> penguins().shape
    (344, 8)
    """
    with (files("bayesmix") / "datasets" / "penguins.csv").open("rb") as source:
        return pd.read_csv(source)


def seattle_weather() -> pd.DataFrame:
    """The weather of Seattle, 2012 to 2015: 1,461 days without a gap (NOAA, public domain).

    Returns
    -------
    pandas.DataFrame
        date, precipitation (mm), temp_max and temp_min (°C), wind (m/s), weather (drizzle, fog, rain, snow or sun).

    Examples
    --------
    >>> from bayesmix.datasets import seattle_weather
    >>> seattle_weather()["weather"].value_counts().to_dict()
    {'sun': 714, 'fog': 411, 'rain': 259, 'drizzle': 54, 'snow': 23}
    """
    with (files("bayesmix") / "datasets" / "seattle_weather.csv").open("rb") as source:
        return pd.read_csv(source, parse_dates=["date"])

"""The main job on a real table, start to end: ``python -m bayesmix.demo`` (or ``make demo``).

Fits the Palmer penguins by EM and by NUTS, compares the components with the species (which the model is never
shown) and the sexes, fills the missing cells, and writes plots to ``./demo-output``.
"""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd

FIELDS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "island"]
COMPONENTS = 6
OUTPUT = Path("demo-output")
SEED = 1


def main() -> None:
    """Run the demo."""
    began = time.perf_counter()
    import matplotlib

    matplotlib.use("Agg")  # pictures go to files
    import bayesmix as bm
    from bayesmix import plots
    from bayesmix.datasets import penguins

    table = penguins()

    section("The table: 344 penguins of Palmer Station, Antarctica (Gorman et al. 2014, CC0)")
    print(table[FIELDS].describe(include="all").loc[["count", "mean", "std"]].round(1).to_string(na_rep=""))
    missing = table[FIELDS].isna()
    cells, rows = int(missing.to_numpy().sum()), int(missing.any(axis=1).sum())
    print(f"\nMissing cells: {cells} in {rows} rows. They are integrated out.")
    print("The species column is not shown to the model.")

    spec = bm.Mixture(
        bm.Composite(
            bill_length_mm=bm.Normal(),
            bill_depth_mm=bm.Normal(),
            flipper_length_mm=bm.Normal(),
            body_mass_g=bm.Normal(),
            sex=bm.Categorical(),
            island=bm.Categorical(),
        ),
        COMPONENTS,
    )

    section("EM: the mode of the posterior, best of 16 starts")
    print(textwrap.fill(repr(spec), 100, subsequent_indent="    "), "\n")
    began_em = time.perf_counter()
    em = bm.fit_em(spec, table, random_seed=SEED, progressbar=True)
    print(f"{em.status}")
    print(f"Log-likelihood {em.loglik:.2f} nats; {time.perf_counter() - began_em:.2f} s.\n")
    print(centres(em))
    print()
    show_clusters(em, table)

    section("NUTS: the full posterior, 4 chains of 1000 draws after 1000 of tuning, started at EM's mode")
    began_nuts = time.perf_counter()
    nuts = bm.fit_nuts(spec, table, random_seed=SEED, progressbar=True)
    print(f"{nuts.status}")
    print(f"{time.perf_counter() - began_nuts:.0f} s.\n")
    summary = nuts.summary(round_to="none")
    wanted = summary.index.str.match(r"weights|sex_p|\w+_mu")
    shown = summary[wanted].drop(columns=["mcse_mean", "mcse_sd"]).round(3)
    print(shown.astype({"ess_bulk": int, "ess_tail": int}).to_string())
    rhat, ess = summary["r_hat"], summary["ess_bulk"]
    print(f"\nAll {len(summary)} parameters: R-hat at most {rhat.max():.3f}, bulk ESS at least {ess.min():.0f}.\n")
    show_clusters(nuts, table)

    section("The missing cells, drawn from their posterior (89 % intervals)")
    imputed = nuts.impute(n_draws=2000, random_seed=SEED)
    show_imputed(imputed, table)

    section("Written")
    OUTPUT.mkdir(exist_ok=True)
    pictures = {
        "fields.png": (plots.plot_fields(nuts), "each field with the components' densities"),
        "responsibilities.png": (
            plots.plot_responsibilities(nuts, groups=table["species"]),
            "component of each bird, by species",
        ),
        "imputation.png": (plots.plot_imputation(imputed), "the missing cells"),
        "starts.png": (plots.plot_starts(em), "EM: its path, and what every start reached"),
    }
    for name, ((figure, _), what) in pictures.items():
        figure.savefig(OUTPUT / name, dpi=130)
        print(f"{OUTPUT / name}: {what}")
    summary.to_csv(OUTPUT / "summary.csv")
    print(f"{OUTPUT / 'summary.csv'}: every parameter")
    completed = imputed.table()
    completed.to_csv(OUTPUT / "penguins_completed.csv", index=False)
    print(f"{OUTPUT / 'penguins_completed.csv'}: the table with its missing cells filled")
    nuts.save(OUTPUT / "penguins.bayesmix")
    print(f"{OUTPUT / 'penguins.bayesmix'}: the fit, for bm.load")
    print(f"\nTotal: {time.perf_counter() - began:.0f} s")


def section(title: str) -> None:
    """Print a heading."""
    print(f"\n{title}\n{'-' * len(title)}", flush=True)


def centres(fit) -> str:
    """Tabulate the components: weight, means, probability of male, most probable island."""
    posterior = fit.posterior.mean(("chain", "draw"))
    columns = {"weight": posterior["weights"].to_numpy().round(3)}
    for name in FIELDS[:4]:
        columns[name] = posterior[f"{name}_mu"].to_numpy().round(1)
    columns["P(male)"] = posterior["sex_p"].sel(sex_symbol="male").to_numpy().round(2)
    likeliest = posterior["island_p"].argmax("island_symbol").to_numpy()
    columns["likeliest island"] = posterior["island_symbol"].to_numpy()[likeliest]
    return pd.DataFrame(columns).rename_axis("component").to_string()


def show_clusters(fit, table: pd.DataFrame) -> None:
    """Print components against what the model was not told."""
    component = pd.Series(fit.predict(), index=table.index, name="component")
    sex = table["sex"].fillna("unknown")
    print("Components against species and sex (rows: most probable component of each bird):")
    cross = pd.crosstab(component, [table["species"], sex])
    print(cross.to_string())
    known = cross.drop(columns="unknown", level="sex", errors="ignore")
    total = int(known.to_numpy().sum())
    apart = total - int(known.max(axis=1).sum())
    print(f"{apart} of {total} birds of known sex lie outside their component's own species and sex.")


def show_imputed(imputed, table: pd.DataFrame) -> None:
    """Print the missing measurements and sexes."""
    lines = imputed.summary(prob=0.89)
    species = table["species"]
    fields = lines.index.get_level_values("field")
    rows = lines.index.get_level_values("row")
    lines = lines.assign(species=species.loc[rows].to_numpy())
    numbers = lines[lines["mean"].notna().to_numpy()]
    print("Measurements (of these two birds only the island is known, so their intervals are wide):")
    print(numbers[["mean", "sd", "low", "high", "species"]].round(1).to_string())
    print("\nSexes:")
    sexes = lines[np.asarray(fields == "sex")]
    shown = sexes[["mode", "p_mode", "species"]].rename(columns={"mode": "sex", "p_mode": "probability"})
    print(shown.round({"probability": 3}).to_string())


if __name__ == "__main__":
    main()

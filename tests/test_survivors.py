"""What the other tests left unsaid: each of these fails under a change of the code that they had all let pass."""

import numpy as np

import bayesmix as bm
from bayesmix.bound import prepare
from bayesmix.relabel import in_canonical_order


def bound_of(spec, table):
    return prepare(spec, table, None)[1]


# ------------------------------------------------------------------- imputation


def test_imputed_vectors_keep_what_was_observed_and_say_which_coordinates_were_drawn():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 3))
    rows[4, 1] = rows[7, 0] = rows[7, 2] = np.nan
    count = rng.poisson(3, 30).astype(float)
    count[4] = np.nan
    fit = bm.fit_em(
        bm.Mixture(bm.Composite(v=bm.MvNormal(), n=bm.Poisson()), 1), {"v": list(rows), "n": count}, random_seed=1
    )
    imputed = fit.impute(n_draws=20, random_seed=1)
    assert set(imputed.coordinates) == {"v"}
    np.testing.assert_array_equal(imputed.coordinates["v"], [[False, True, False], [True, False, True]])
    assert imputed.draws["v"].shape == (20, 2, 3)
    assert (imputed.draws["v"][:, 0, [0, 2]] == rows[4, [0, 2]]).all()
    assert (imputed.draws["v"][:, 1, 1] == rows[7, 1]).all()
    assert imputed.draws["v"][:, 0, 1].std() > 0
    # one line for each number that is missing, and none for those that are not
    assert imputed.summary().index.tolist() == [("v[1]", 4), ("v[0]", 7), ("v[2]", 7), ("n", 4)]


# ------------------------------------------------------------------- order of the components


def test_components_of_equal_weight_come_in_one_order_whatever_their_labels():
    spec = bm.Mixture(bm.Composite(a=bm.Poisson(), b=bm.Categorical()), 3)
    bound = bound_of(spec, {"a": [1, 2, 9, 4], "b": ["x", "y", "z", "x"]})
    params = {
        "weights": np.full(3, 1 / 3),
        "a_mu": np.array([5.0, 1.0, 3.0]),
        "b_p": np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]),
    }
    for order in ([0, 1, 2], [2, 0, 1], [1, 0, 2]):
        found = in_canonical_order(bound, {name: value[order] for name, value in params.items()})
        np.testing.assert_array_equal(found["a_mu"], [1.0, 3.0, 5.0])
        np.testing.assert_array_equal(found["b_p"], params["b_p"][[1, 2, 0]])

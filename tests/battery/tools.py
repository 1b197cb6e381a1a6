"""What the battery's tests share: a fit with its warnings, and what every answer must have."""

from __future__ import annotations

import warnings

import numpy as np

import bayesmix as bm

#: Few draws: the battery asks whether an answer is sane, not whether it is precise.
SHORT = {
    "em": {},
    "map": {},
    "nuts": {"draws": 60, "tune": 150, "chains": 2, "cores": 1, "n_starts": 4},
    "advi": {"draws": 100, "n_starts": 4},
    "laplace": {"draws": 100, "n_starts": 4},
}
#: What a short run may say of itself, and an approximation of a posterior that is far from normal.
OF_ENGINES = (bm.ConvergenceWarning, bm.MultimodalWarning, bm.ApproximationWarning)


def fitted(spec, data, method="em", random_seed=1, **kwargs):
    """A fit, and the library's warnings about the data and the components."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = bm.fit(spec, data, method=method, random_seed=random_seed, **SHORT.get(method, {}), **kwargs)
    for each in caught:
        assert issubclass(each.category, bm.BayesmixWarning), f"{each.category.__name__}: {each.message}"
    return fit, [each for each in caught if not issubclass(each.category, OF_ENGINES)]


def assert_sane(fit, data, new=None):
    """Finite parameters in every draw; finite densities and probabilities of the training rows and of new ones."""
    for name in fit.bound.free_slots:
        assert np.isfinite(fit.posterior[name].values).all(), name
    assert np.isfinite(fit.loglik)
    for table in (data, data if new is None else new):
        density = fit.log_density(table)
        assert np.isfinite(density).all()
        if fit.bound.is_mixture:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bm.BayesmixWarning)  # labels of few draws
                resp, labels = fit.responsibilities(table), fit.predict(table)
            assert resp.shape == (len(density), fit.params["weights"].shape[-1])
            np.testing.assert_allclose(resp.sum(1), 1, rtol=1e-9)
            np.testing.assert_array_equal(labels, resp.argmax(1))

"""scikit-learn: `GaussianMixture`, one E-step, M-step and lower bound as in its own loop."""

from __future__ import annotations

import numpy as np
import sklearn
from _server import serve
from sklearn.mixture import GaussianMixture


def prepare(case, task):
    p, x = case["start"], np.asarray(case["x"])
    if case["kind"] == "normal":
        x, mu, precision = x[:, None], p["mu"][:, None], p["sigma"] ** -2.0
        kind = "spherical"  # the fastest of the equal ones in one dimension
    else:
        mu, precision, kind = p["mu"], np.linalg.inv(p["cov"]), "full"
    mixture = GaussianMixture(
        len(mu), covariance_type=kind, means_init=mu, weights_init=p["weights"], precisions_init=precision, max_iter=1,
        reg_covar=0.0, tol=0.0,
    ).fit(x[: max(1000, 10 * len(mu))])  # fmt: skip
    mixture.weights_, mixture.means_ = p["weights"], mu
    mixture.precisions_cholesky_ = np.sqrt(precision) if kind == "spherical" else np.linalg.cholesky(precision)
    mean, _ = mixture._e_step(x)
    state = [np.copy(v) for v in (mixture.weights_, mixture.means_, mixture.precisions_cholesky_)]

    def step():
        mixture.weights_, mixture.means_, mixture.precisions_cholesky_ = state
        mean, log_resp = mixture._e_step(x)
        mixture._m_step(x, log_resp)
        mixture._compute_lower_bound(log_resp, mean)

    return step, {"loglik": float(mean) * len(x), "version": f"scikit-learn {sklearn.__version__}"}


serve(prepare)

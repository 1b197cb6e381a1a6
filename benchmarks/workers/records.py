"""DMLearn and mixle: the same classes in two packages. The first argument of the script's name decides.

dmx-learn: an iteration is `seq_estimate` (E- and M-step) and `seq_log_density_sum`, as in its own loop.
mixle: an iteration is a tenth of a call of `optimize` for ten, which chooses its fastest way by their number.
"""

from __future__ import annotations

import importlib.metadata
import io
import time

from _server import serve

try:
    import mixle.stats as stats
    from mixle.inference.estimation import optimize

    VERSION = f"mixle {importlib.metadata.version('mixle')}"
except ImportError:
    import dmx.stats as stats

    optimize = None
    VERSION = f"dmx-learn {importlib.metadata.version('dmx-learn')}"


def normals(mu, sigma):
    return [stats.GaussianDistribution(m, s * s) for m, s in zip(mu, sigma)]


def poissons(rates):
    return [stats.PoissonDistribution(rate) for rate in rates]


def gaussian():
    return stats.GaussianEstimator()


def normal(case):
    p = case["start"]
    model = stats.MixtureDistribution(normals(p["mu"], p["sigma"]), p["weights"])
    return model, stats.MixtureEstimator([gaussian() for _ in p["mu"]]), case["x"].tolist()


def mvnormal(case):
    p = case["start"]
    parts = [stats.MultivariateGaussianDistribution(mu, cov) for mu, cov in zip(p["mu"], p["cov"])]
    estimators = [stats.MultivariateGaussianEstimator(dim=case["x"].shape[1]) for _ in p["mu"]]
    return stats.MixtureDistribution(parts, p["weights"]), stats.MixtureEstimator(estimators), list(case["x"])


def composite(case):
    p, parts, estimators = case["start"], [], []
    for k in range(len(p["weights"])):
        chain = {s: dict(zip("ab", row)) for s, row in zip("ab", p["x3_transition"][k].tolist())}
        parts.append(
            stats.CompositeDistribution(
                [
                    stats.MixtureDistribution(normals(p["x1_mu"][k], p["x1_sigma"][k]), p["x1_weights"][k]),
                    stats.OptionalDistribution(stats.GeometricDistribution(p["x2_p"][k]), p=p["x2_p_missing"][k]),
                    stats.MarkovChainDistribution(
                        dict(zip("ab", p["x3_initial"][k].tolist())),
                        chain,
                        len_dist=stats.PoissonDistribution(p["x3_length_mu"][k]),
                    ),
                    stats.BernoulliSetDistribution(dict(zip("abcd", p["x4_p"][k].tolist()))),
                ]
            )
        )
        estimators.append(
            stats.CompositeEstimator(
                [
                    stats.MixtureEstimator([gaussian(), gaussian()]),
                    stats.OptionalEstimator(stats.GeometricEstimator(), est_prob=True),
                    stats.MarkovChainEstimator(len_estimator=stats.PoissonEstimator()),
                    stats.BernoulliSetEstimator(),
                ]
            )
        )
    rows = list(zip(case["x1"].tolist(), case["x2"], case["x3"], case["x4"]))
    return stats.MixtureDistribution(parts, p["weights"]), stats.MixtureEstimator(estimators), rows


def hierarchical(case):
    p = case["start"]
    topics = normals(p["topic_mu"], p["topic_sigma"])
    model = stats.HierarchicalMixtureDistribution(topics, p["weights"], p["topic_weights"])
    estimator = stats.HierarchicalMixtureEstimator([gaussian() for _ in topics], num_mixtures=len(p["weights"]))
    return model, estimator, case["x"].tolist()


def joint(case):
    p = case["start"]
    first = [
        stats.CompositeDistribution([stats.CategoricalDistribution(dict(zip("abc", row))), each])
        for row, each in zip(p["x_cat_p"].tolist(), normals(p["x_real_mu"], p["x_real_sigma"]))
    ]
    second = [
        stats.SequenceDistribution(each, len_dist=length)
        for each, length in zip(normals(p["y_mu"], p["y_sigma"]), poissons(p["y_length_mu"]))
    ]
    both = p["weights"][:, None] * p["transition"]
    model = stats.JointMixtureDistribution(
        first, second, p["weights"], both.sum(0), p["transition"], (both / both.sum(0)).tolist()
    )
    estimator = stats.JointMixtureEstimator(
        [stats.CompositeEstimator([stats.CategoricalEstimator(), gaussian()]) for _ in first],
        [stats.SequenceEstimator(gaussian(), len_estimator=stats.PoissonEstimator()) for _ in second],
    )
    return model, estimator, list(zip(zip(case["cat"], case["real"].tolist()), case["y"]))


KINDS = {f.__name__: f for f in (normal, mvnormal, composite, hierarchical, joint)}


def prepare(case, task):
    model, estimator, rows = KINDS[case["kind"]](case)
    encoded = stats.seq_encode(rows, model.dist_to_encoder())
    del rows
    _, loglik = stats.seq_log_density_sum(encoded, model)

    def by_passes():
        stats.seq_estimate(encoded, estimator, model)
        stats.seq_log_density_sum(encoded, model)

    def by_fit():
        begin, processor = time.perf_counter(), time.process_time()
        fitted = optimize(
            None, estimator, max_its=10, delta=None, prev_estimate=model, enc_data=encoded, out=io.StringIO(),
            print_iter=0,
        )  # fmt: skip
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        iterations = fitted.fit_provenance().iterations
        return {"seconds": seconds / iterations, "processor": processor / iterations, "iterations": iterations}

    return by_passes if optimize is None else by_fit, {"loglik": float(loglik), "version": VERSION}


serve(prepare)

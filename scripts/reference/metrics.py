#!/usr/bin/env -S python3 -B
"""Writes the data sets and scikit-learn's metrics that common/src/metrics is tested against.

Each file of common/src/metrics/reference holds raw predictions, the site that each is at, and what scikit-learn
makes of them all together. Everything is seeded: with the same versions (the files name scikit-learn's) the same
bytes come out. To run it: pip install scikit-learn==1.9.1.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics
from sklearn.calibration import calibration_curve

OUT = Path(__file__).resolve().parents[2] / "common/src/metrics/reference"
SITES = 3
BINS = 10


def main():
    warnings.simplefilter("ignore")  # on labels without examples, whose ratios are 0 by zero_division
    write("binary", classification(seed=1, shares=[0.5, 0.5], count=200))
    write("multi_class", classification(seed=2, shares=[0.25] * 4, count=200))
    write("imbalanced", classification(seed=3, shares=[0.94, 0.05, 0.01], count=300))
    write("imbalanced_binary", classification(seed=4, shares=[0.97, 0.03], count=300, lift=3.0))
    write("confident", classification(seed=5, shares=[0.4, 0.3, 0.3], count=150, spread=15.0))
    write("absent_label", classification(seed=6, shares=[0.5, 0.0, 0.5], count=80))
    write("one_class", classification(seed=7, shares=[0.0, 1.0, 0.0], count=60))
    write("one_class_binary", classification(seed=8, shares=[1.0, 0.0], count=40))
    write("always_the_same", classification(seed=9, shares=[0.7, 0.3], count=60, bias=[20.0, 0.0]))
    write("multi_label", multi_label(seed=10, shares=[0.5, 0.3, 0.1, 0.02], count=200))
    write("multi_label_degenerate", multi_label(seed=11, shares=[0.4, 0.0, 1.0], count=50))
    write("regression", regression(seed=12, count=150, mean=54.0, std=9.0))
    write("regression_far", regression(seed=13, count=100, mean=1e6, std=0.01))
    write("regression_constant", regression(seed=14, count=30, mean=5.0, std=2.0, constant=True))
    write("language", language(seed=15, count=40, vocabulary=12))


def write(name, case):
    case = {"scikit_learn": sklearn.__version__, **case}
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in case.items())
    (OUT / f"{name}.json").write_text("{\n" + lines + "\n}\n")


def single(values):
    """Three decimals as a 32-bit float: what a model gives, short to write."""
    return np.round(values, 3).astype(np.float32)


def plain(values):
    """Three decimals, or integers, as JSON has them."""
    return [[round(float(x), 3) for x in row] for row in values] if np.ndim(values) == 2 else values.tolist()


def log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def ratios(truth, predicted, **which):
    """Precision, recall and F1 by every average."""
    found = {}
    for average in ("micro", "macro", "weighted"):
        values = metrics.precision_recall_fscore_support(
            truth, predicted, average=average, zero_division=0, **which
        )
        found |= dict(zip((f"{average}_precision", f"{average}_recall", f"{average}_f1"), values))
    return found


def per_label(hot, predicted, scores):
    """Each label against the rest; all three have a column per label."""
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        hot, predicted, average=None, zero_division=0
    )
    return [
        {
            "precision": precision[k],
            "recall": recall[k],
            "f1": f1[k],
            "support": int(support[k]),
            "roc_auc": roc_auc(hot[:, k], scores[:, k]),
            "pr_auc": pr_auc(hot[:, k], scores[:, k]),
        }
        for k in range(hot.shape[1])
    ]


def roc_auc(truth, scores):
    return float(metrics.roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else None


def pr_auc(truth, scores):
    return float(metrics.average_precision_score(truth, scores)) if truth.sum() else None


def mean_of(labels, key):
    values = [label[key] for label in labels if label[key] is not None]
    return float(np.mean(values)) if values else None


def classification(seed, shares, count, spread=4.0, lift=1.5, bias=None):
    random = np.random.default_rng(seed)
    n = len(shares)
    truth = random.choice(n, size=count, p=shares)
    logits = random.uniform(-spread, spread, size=(count, n))
    logits[np.arange(count), truth] += lift
    logits = single(logits + (np.array(bias) if bias else 0.0))
    every = np.arange(n)
    log_p = log_softmax(logits.astype(np.float64))
    p = np.exp(log_p)
    predicted = logits.argmax(axis=1)
    confidence = p.max(axis=1)
    # In logits: the order of the probabilities, without the ties that their rounding makes near 1.
    wide = logits.astype(np.float64)
    scores = np.stack(
        [wide[:, k] - np.log(np.exp(np.delete(wide, k, axis=1)).sum(axis=1)) for k in every], axis=1
    )
    hot = np.eye(n, dtype=int)
    labels = per_label(hot[truth], hot[predicted], scores)
    right = (predicted == truth).astype(int)
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    counted = np.bincount(bins, minlength=BINS)
    share, mean = calibration_curve(right, confidence, n_bins=BINS)
    filled = np.flatnonzero(counted)
    curve = [{"num_examples": 0, "confidence": None, "accuracy": None} for _ in range(BINS)]
    for at, accuracy, sure in zip(filled, share, mean):
        curve[at] = {"num_examples": int(counted[at]), "confidence": sure, "accuracy": accuracy}
    two = n == 2
    brier = (
        metrics.brier_score_loss(truth, p[:, 1], labels=[0, 1], pos_label=1)
        if two
        else metrics.brier_score_loss(truth, p, labels=every)
    )
    occurring = np.union1d(truth, predicted)
    return {
        "labels": n,
        "sites": random.integers(SITES, size=count).tolist(),
        "truth": truth.tolist(),
        "logits": plain(logits),
        "expected": {
            "num_examples": count,
            "loss": metrics.log_loss(truth, p, labels=every),
            "accuracy": metrics.accuracy_score(truth, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
            **ratios(truth, predicted, labels=occurring),
            "roc_auc": labels[1]["roc_auc"] if two else mean_of(labels, "roc_auc"),
            "pr_auc": labels[1]["pr_auc"] if two else mean_of(labels, "pr_auc"),
            "mcc": metrics.matthews_corrcoef(truth, predicted),
            "cohen_kappa": metrics.cohen_kappa_score(truth, predicted, labels=every, replace_undefined_by=0.0),
            "brier_score": brier,
            "calibration_error": float((counted[filled] * np.abs(share - mean)).sum() / count),
            "calibration": curve,
            "per_class": labels,
            "confusion": metrics.confusion_matrix(truth, predicted, labels=every).tolist(),
        },
    }


def multi_label(seed, shares, count):
    random = np.random.default_rng(seed)
    truth = (random.random((count, len(shares))) < shares).astype(int)
    logits = single(random.uniform(-4, 4, size=truth.shape) + 2.0 * (truth - 0.5))
    wide = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-wide))
    predicted = (p > 0.5).astype(int)
    labels = per_label(truth, predicted, wide)
    losses = [metrics.log_loss(truth[:, k], p[:, k], labels=[0, 1]) for k in range(len(shares))]
    return {
        "labels": len(shares),
        "sites": random.integers(SITES, size=count).tolist(),
        "truth": truth.tolist(),
        "logits": plain(logits),
        "expected": {
            "num_examples": count,
            "loss": float(np.mean(losses)),
            "accuracy": metrics.accuracy_score(truth, predicted),
            **ratios(truth, predicted),
            "roc_auc": mean_of(labels, "roc_auc"),
            "micro_roc_auc": metrics.roc_auc_score(truth.ravel(), wide.ravel()),
            "pr_auc": mean_of(labels, "pr_auc"),
            "per_class": labels,
        },
    }


def regression(seed, count, mean, std, constant=False):
    random = np.random.default_rng(seed)
    truth = np.full(count, mean) if constant else random.normal(mean, std, size=count)
    predicted = truth + random.normal(0.1 * std, 0.5 * std, size=count)
    return {
        "mean": mean,
        "std": std,
        "sites": random.integers(SITES, size=count).tolist(),
        "truth": truth.tolist(),
        "predictions": predicted.tolist(),
        "expected": {
            "num_examples": count,
            "mae": metrics.mean_absolute_error(truth, predicted),
            "rmse": metrics.root_mean_squared_error(truth, predicted),
            "r2": metrics.r2_score(truth, predicted),
        },
    }


def language(seed, count, vocabulary):
    """The tokens of all texts are a classification over the vocabulary."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 12, size=count)
    truth = random.integers(vocabulary, size=lengths.sum())
    logits = random.normal(size=(len(truth), vocabulary))
    logits[np.arange(len(truth)), truth] += 1.0
    log_p = log_softmax(logits)
    predicted = logits.argmax(axis=1)
    losses, right = -log_p[np.arange(len(truth)), truth], predicted == truth
    ends = lengths.cumsum()
    loss = metrics.log_loss(truth, np.exp(log_p), labels=np.arange(vocabulary))
    return {
        "sites": random.integers(SITES, size=count).tolist(),
        "losses": [losses[end - length : end].tolist() for end, length in zip(ends, lengths)],
        "right": [right[end - length : end].tolist() for end, length in zip(ends, lengths)],
        "expected": {
            "num_examples": count,
            "num_tokens": len(truth),
            "loss": loss,
            "perplexity": float(np.exp(loss)),
            "token_accuracy": metrics.accuracy_score(truth, predicted),
        },
    }


if __name__ == "__main__":
    main()

"""Train a classifier on half of scikit-learn's handwritten digits and store its logits for the other half.

    python examples/digits/make_digits.py

writes logits.npy (899, 10) float32 and targets.npy (899,) int64 beside this script.  It needs scikit-learn, whose package holds the data.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent


def main():
    images, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(images / 16, digits, test_size=0.5, random_state=0, stratify=digits)
    model = MLPClassifier(hidden_layer_sizes=(64,), alpha=1e-3, max_iter=400, random_state=0).fit(train, train_digits)
    logits = logits_of(model, test)
    assert np.array_equal(logits.argmax(axis=1), model.predict(test))
    np.save(HERE / "logits.npy", logits.astype(np.float32))
    np.save(HERE / "targets.npy", test_digits.astype(np.int64))
    print(f"{len(test)} test images, accuracy {model.score(test, test_digits):.2%}")


def logits_of(model, x):
    """What the last layer puts out before the softmax, which scikit-learn does not hand out."""
    *hidden, last = zip(model.coefs_, model.intercepts_)
    for weight, bias in hidden:
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = last
    return x @ weight + bias


if __name__ == "__main__":
    main()

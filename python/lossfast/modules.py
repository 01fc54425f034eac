"""Losses as classes of torch.nn's names, with torch's constructor arguments: a function of lossfast.functional and its options."""

import inspect

import numpy as np

from lossfast import _core
from lossfast import functional as F
from lossfast._gradients import value_and_grad
from lossfast._legacy import legacy_reduction

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss",
    "CosineEmbeddingLoss", "CrossEntropyLoss", "DiceLoss", "FocalLoss", "GammaDeviance", "GammaNLLLoss",
    "GaussianNLLLoss", "HingeEmbeddingLoss", "HingeLoss", "HuberLoss", "JSDivLoss", "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss",
    "LogCoshLoss", "MSELoss", "MarginRankingLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss",
    "PoissonDeviance", "PoissonNLLLoss", "QuantileLoss", "SigmoidFocalLoss", "SmoothL1Loss", "SoftMarginLoss", "SquaredHingeLoss",
    "RNNTLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss", "TweedieDeviance", "TweedieNLLLoss", "WassersteinLoss",
]  # fmt: skip


class _Signature:
    """A class's constructor as its options tell, made when asked for: 38 of them would take 0.4 ms of the import."""

    def __get__(self, instance, cls):
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default) for name, default in cls.options.items()]
        return inspect.Signature(parameters)


class Loss:
    """A loss with its options: calling it calls `function` with them. Base of the loss classes.

    Options are the attributes of an instance, and no others. They are checked when it is made, by the function itself on an input of one element.
    """

    function = None  # of lossfast.functional
    options = {}  # constructor arguments in torch's order, and their defaults
    __signature__ = _Signature()

    def __init__(self, *args, **kwargs):
        options = self.options | self.__signature__.bind(*args, **kwargs).arguments
        size_average, reduce = options.pop("size_average", None), options.pop("reduce", None)
        if size_average is not None or reduce is not None:
            options["reduction"] = legacy_reduction(size_average, reduce)
        self.__dict__.update(options)
        self.check()

    def check(self):
        """Try the options. Nothing here may set warnings aside: their filters are the process's, which other threads would put back wrongly."""
        self(*self.probe())

    def probe(self):
        """Arrays of one element that the options can be tried on."""
        return np.full(1, 0.5), np.full(1, 0.5)

    def __call__(self, *arrays, **more):
        return type(self).function(*arrays, **self.__dict__, **more)

    def value_and_grad(self, *arrays, argnums=0, **more):
        """Value and gradient of one call: see `lossfast.value_and_grad`.

        Returns
        -------
        (value, gradient)
        """
        return value_and_grad(self, argnums)(*arrays, **more)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def _classes_of(weight):
    """How many classes a probe has: as many as weights, where there are any."""
    return 2 if weight is None else np.size(weight) or 1


class _ClassLoss(Loss):
    def probe(self):
        return np.zeros((1, _classes_of(self.weight))), np.zeros(1, np.intp)


class CrossEntropyLoss(_ClassLoss):
    """Cross entropy between logits and class indices or probabilities: `lossfast.functional.cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.CrossEntropyLoss(label_smoothing=0.1)(np.array([[2.0, 0.0]]), [0])  # doctest: +ELLIPSIS
    np.float64(0.226928011042972...)
    """

    function = staticmethod(F.cross_entropy)
    options = {"weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean", "label_smoothing": 0.0}


class NLLLoss(_ClassLoss):
    """Negative log likelihood under log-probabilities: `lossfast.functional.nll_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.NLLLoss(reduction="sum")(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1])
    np.float64(0.9808292530117262)
    """

    function = staticmethod(F.nll_loss)
    options = {"weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean"}


def _classes_with(blank):
    """How many classes a probe needs to have this one."""
    blank = _core.whole_number(blank, "blank")
    if blank >= 1 << 24:
        raise ValueError(f"blank: expected a class, got {blank}")
    return max(blank + 1, 1)


class CTCLoss(Loss):
    """Connectionist temporal classification: `lossfast.functional.ctc_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> loss, grad = lf.CTCLoss(from_logits=True).value_and_grad(np.zeros((4, 1, 3)), [[1, 2]], 4, 2)
    >>> loss.round(4), grad[0, 0].round(4)
    (np.float64(0.8432), array([ 0.    , -0.1667,  0.1667]))
    """

    function = staticmethod(F.ctc_loss)
    options = {"blank": 0, "reduction": "mean", "zero_infinity": False, "from_logits": False}

    def probe(self):
        return np.zeros((1, 1, _classes_with(self.blank))), np.zeros((1, 0), int), 1, 0


class RNNTLoss(Loss):
    """RNN transducer loss: `lossfast.functional.rnnt_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import lossfast as lf
    >>> lf.RNNTLoss(blank=0)(np.zeros((1, 2, 2, 3)), [[1]], 2, 1).round(4)
    np.float64(2.6027)
    """

    function = staticmethod(F.rnnt_loss)
    options = {"blank": -1, "clamp": -1, "reduction": "mean", "fused_log_softmax": True}

    def probe(self):
        return np.zeros((1, 1, 1, _classes_with(self.blank))), np.zeros((1, 0), int), 1, 0


class _WeightedLoss(Loss):
    def probe(self):
        shape = np.broadcast_shapes(
            (1,), *(np.shape(weight) for name, weight in vars(self).items() if name.endswith("weight") and weight is not None)
        )
        return np.full(shape, 0.5), np.full(shape, 0.5)


class _TripleLoss(Loss):
    def probe(self):
        return np.full(1, 0.5), np.full(1, 0.5), np.full(1, 0.5)


class L1Loss(Loss):
    """Absolute error: `lossfast.functional.l1_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.L1Loss()([1.0, 2.0], [1.5, 4.0])
    np.float64(1.25)
    """

    function = staticmethod(F.l1_loss)
    options = {"size_average": None, "reduce": None, "reduction": "mean"}


class MSELoss(Loss):
    """Squared error: `lossfast.functional.mse_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.MSELoss(reduction="sum")([1.0, 2.0], [1.5, 4.0])
    np.float64(4.25)
    """

    function = staticmethod(F.mse_loss)
    options = {"size_average": None, "reduce": None, "reduction": "mean"}


class HuberLoss(Loss):
    """Huber loss: `lossfast.functional.huber_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.HuberLoss(delta=2.0)([0.0, 0.0], [0.5, 4.0])
    np.float64(3.0625)
    """

    function = staticmethod(F.huber_loss)
    options = {"reduction": "mean", "delta": 1.0}


class SmoothL1Loss(Loss):
    """Smooth L1 loss: `lossfast.functional.smooth_l1_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.SmoothL1Loss(beta=2.0)([0.0, 0.0], [0.5, 4.0])
    np.float64(1.53125)
    """

    function = staticmethod(F.smooth_l1_loss)
    options = {"size_average": None, "reduce": None, "reduction": "mean", "beta": 1.0}


class QuantileLoss(Loss):
    """Quantile (pinball) loss: `lossfast.functional.quantile_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.QuantileLoss(0.9)([1.0, 1.0], [2.0, 0.0])
    np.float64(0.5)
    """

    function = staticmethod(F.quantile_loss)
    options = {"q": 0.5, "reduction": "mean"}


class LogCoshLoss(Loss):
    """Logarithm of the hyperbolic cosine of the error: `lossfast.functional.log_cosh_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.LogCoshLoss()([1.0, 1000.0], [0.0, 0.0])
    np.float64(499.87031682496155)
    """

    function = staticmethod(F.log_cosh_loss)
    options = {"reduction": "mean"}


class GaussianNLLLoss(_TripleLoss):
    """Negative log likelihood of a Gaussian of given variance: `lossfast.functional.gaussian_nll_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.GaussianNLLLoss(full=True)([1.0, 2.0], [1.5, 4.0], [1.0, 2.0])
    np.float64(1.654725328344659)
    """

    function = staticmethod(F.gaussian_nll_loss)
    options = {"full": False, "eps": 1e-6, "reduction": "mean"}


class PoissonNLLLoss(Loss):
    """Negative log likelihood of counts under a Poisson distribution: `lossfast.functional.poisson_nll_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.PoissonNLLLoss(log_input=False)([1.0, 2.0], [1.0, 3.0])
    np.float64(0.4602792166600821)
    """

    function = staticmethod(F.poisson_nll_loss)
    options = {"log_input": True, "full": False, "size_average": None, "eps": 1e-8, "reduce": None, "reduction": "mean"}


class GammaNLLLoss(Loss):
    """Negative log likelihood under a gamma distribution, with log link: `lossfast.functional.gamma_nll_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.GammaNLLLoss()([0.0, 1.0], [2.0, 1.0])
    np.float64(1.6839397205857212)
    """

    function = staticmethod(F.gamma_nll_loss)
    options = {"reduction": "mean"}


class TweedieNLLLoss(Loss):
    """Negative log likelihood under a Tweedie distribution, with log link: `lossfast.functional.tweedie_nll_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.TweedieNLLLoss(1.5)([0.0, 1.0], [0.0, 2.0])
    np.float64(3.861782590125395)
    """

    function = staticmethod(F.tweedie_nll_loss)
    options = {"power": 1.5, "reduction": "mean"}


class PoissonDeviance(Loss):
    """Poisson deviance: `lossfast.functional.poisson_deviance`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.PoissonDeviance()([1.0, 2.0], [0.0, 3.0])
    np.float64(1.2163953243244932)
    """

    function = staticmethod(F.poisson_deviance)
    options = {"reduction": "mean"}


class GammaDeviance(Loss):
    """Gamma deviance: `lossfast.functional.gamma_deviance`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.GammaDeviance()([1.0, 2.0], [0.5, 3.0])
    np.float64(0.2876820724517809)
    """

    function = staticmethod(F.gamma_deviance)
    options = {"reduction": "mean"}


class TweedieDeviance(Loss):
    """Tweedie deviance: `lossfast.functional.tweedie_deviance`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.TweedieDeviance(1.5)([1.0, 2.0], [0.0, 3.0])
    np.float64(2.142864581589966)
    """

    function = staticmethod(F.tweedie_deviance)
    options = {"power": 1.5, "reduction": "mean"}


class BCELoss(_WeightedLoss):
    """Binary cross entropy between probabilities: `lossfast.functional.binary_cross_entropy`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.BCELoss()([0.9, 0.2], [1.0, 0.0])
    np.float64(0.16425203348601802)
    """

    function = staticmethod(F.binary_cross_entropy)
    options = {"weight": None, "size_average": None, "reduce": None, "reduction": "mean"}


class BCEWithLogitsLoss(_WeightedLoss):
    """Binary cross entropy between logits and probabilities: `lossfast.functional.binary_cross_entropy_with_logits`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.BCEWithLogitsLoss(pos_weight=[2.0, 1.0])([0.0, 0.0], [1.0, 1.0])
    np.float64(1.0397207708399179)
    """

    function = staticmethod(F.binary_cross_entropy_with_logits)
    options = {"weight": None, "size_average": None, "reduce": None, "reduction": "mean", "pos_weight": None}


class SigmoidFocalLoss(Loss):
    """Focal loss of logits and binary targets: `lossfast.functional.sigmoid_focal_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.SigmoidFocalLoss(gamma=1.0, reduction="mean")([0.0, 3.0], [1.0, 1.0])
    np.float64(0.04360973598171785)
    """

    function = staticmethod(F.sigmoid_focal_loss)
    options = {"alpha": 0.25, "gamma": 2.0, "reduction": "none"}


class SoftMarginLoss(Loss):
    """Logistic loss of targets -1 and 1: `lossfast.functional.soft_margin_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.SoftMarginLoss()([0.0, 40.0], [1.0, 1.0])
    np.float64(0.34657359027997264)
    """

    function = staticmethod(F.soft_margin_loss)
    options = {"size_average": None, "reduce": None, "reduction": "mean"}


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """Binary cross entropy with logits, averaged over classes: `lossfast.functional.multilabel_soft_margin_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.MultiLabelSoftMarginLoss()([[2.0, -1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]])
    np.float64(0.4566210149202714)
    """

    function = staticmethod(F.multilabel_soft_margin_loss)
    options = {"weight": None, "size_average": None, "reduce": None, "reduction": "mean"}


class KLDivLoss(Loss):
    """Kullback-Leibler divergence: `lossfast.functional.kl_div`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.KLDivLoss(reduction="batchmean")([[-1.0, -1.0]], [[0.5, 0.5]])
    np.float64(0.3068528194400547)
    """

    function = staticmethod(F.kl_div)
    options = {"size_average": None, "reduce": None, "reduction": "mean", "log_target": False}

    def check(self):
        """The mean warns where it is taken."""
        chosen = {"reduction": "batchmean"} if isinstance(self.reduction, str) and self.reduction == "mean" else {}
        type(self).function(*self.probe(), **self.__dict__ | chosen)


class JSDivLoss(Loss):
    """Jensen-Shannon divergence: `lossfast.functional.js_div`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.JSDivLoss("batchmean")([[1.0, 0.0]], [[0.0, 1.0]])
    np.float64(0.6931471805599453)
    """

    function = staticmethod(F.js_div)
    options = {"reduction": "mean", "log": False}


class HingeLoss(Loss):
    """Hinge loss of targets -1 and 1: `lossfast.functional.hinge_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.HingeLoss()([0.5, -2.0], [1.0, 1.0])
    np.float64(1.75)
    """

    function = staticmethod(F.hinge_loss)
    options = {"reduction": "mean"}


class SquaredHingeLoss(Loss):
    """Squared hinge loss of targets -1 and 1: `lossfast.functional.squared_hinge_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.SquaredHingeLoss()([0.5, -2.0], [1.0, 1.0])
    np.float64(4.625)
    """

    function = staticmethod(F.squared_hinge_loss)
    options = {"reduction": "mean"}


class HingeEmbeddingLoss(Loss):
    """Distances of similar pairs, and dissimilar ones within a margin: `lossfast.functional.hinge_embedding_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.HingeEmbeddingLoss()([0.25, 0.25], [1.0, -1.0])
    np.float64(0.5)
    """

    function = staticmethod(F.hinge_embedding_loss)
    options = {"margin": 1.0, "size_average": None, "reduce": None, "reduction": "mean"}


class MarginRankingLoss(_TripleLoss):
    """How far pairs of scores miss their order by a margin: `lossfast.functional.margin_ranking_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.MarginRankingLoss(0.5)([1.0, 1.0], [0.0, 3.0], [1.0, 1.0])
    np.float64(1.25)
    """

    function = staticmethod(F.margin_ranking_loss)
    options = {"margin": 0.0, "size_average": None, "reduce": None, "reduction": "mean"}


class MultiMarginLoss(Loss):
    """Hinge loss of several classes: `lossfast.functional.multi_margin_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.MultiMarginLoss()([[0.5, 0.25, 2.0], [3.0, 0.0, 0.0]], [0, 0])
    np.float64(0.5416666666666666)
    """

    function = staticmethod(F.multi_margin_loss)
    options = {"p": 1, "margin": 1.0, "weight": None, "size_average": None, "reduce": None, "reduction": "mean"}

    def probe(self):
        return np.zeros((1, _classes_of(self.weight))), np.zeros(1, int)


class MultiLabelMarginLoss(Loss):
    """Hinge loss of several classes of which several hold: `lossfast.functional.multilabel_margin_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.MultiLabelMarginLoss()([[0.5, 0.25, 2.0]], [[0, 1, -1]])
    np.float64(1.75)
    """

    function = staticmethod(F.multilabel_margin_loss)
    options = {"size_average": None, "reduce": None, "reduction": "mean"}

    def probe(self):
        return np.zeros((1, 2)), np.zeros((1, 2), int)


class FocalLoss(Loss):
    """Focal loss of several classes: `lossfast.functional.focal_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.FocalLoss(gamma=1.0, reduction="none")([[2.0, 0.0], [0.0, 2.0]], [0, 0])
    array([0.01513019, 1.87339198])
    """

    function = staticmethod(F.focal_loss)
    options = {"weight": None, "gamma": 2.0, "ignore_index": -100, "reduction": "mean", "alpha": None}

    def probe(self):
        return np.zeros((1, _classes_of(self.alpha if self.weight is None and np.ndim(self.alpha) else self.weight))), np.full(1, self.ignore_index)


class CosineEmbeddingLoss(Loss):
    """How far pairs of vectors are from the same direction, or near it: `lossfast.functional.cosine_embedding_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.CosineEmbeddingLoss()([[1.0, 0.0]], [[1.0, 1.0]], [1])
    np.float64(0.2928932188139829)
    """

    function = staticmethod(F.cosine_embedding_loss)
    options = {"margin": 0.0, "size_average": None, "reduce": None, "reduction": "mean"}

    def probe(self):
        return np.ones((1, 1)), np.ones((1, 1)), np.ones(1)


class TripletMarginLoss(Loss):
    """How far anchors are from their positives, compared with their negatives: `lossfast.functional.triplet_margin_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.TripletMarginLoss(margin=2.0)([[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 5.5]])
    np.float64(1.4999995999999136)
    """

    function = staticmethod(F.triplet_margin_loss)
    options = {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False, "size_average": None, "reduce": None, "reduction": "mean"}

    def probe(self):
        return (np.ones((1, 1)),) * 3


class TripletMarginWithDistanceLoss(Loss):
    """Triplet margin loss with a distance of one's own: `lossfast.functional.triplet_margin_with_distance_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.TripletMarginWithDistanceLoss()([[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 5.5]])
    np.float64(0.4999995999999136)
    """

    function = staticmethod(F.triplet_margin_with_distance_loss)
    options = {"distance_function": None, "margin": 1.0, "swap": False, "reduction": "mean"}

    def check(self):
        """A function of the user's is not called on arrays of another shape than it is meant for."""
        if self.distance_function is not None and not callable(self.distance_function):
            raise TypeError(f"distance_function: expected a function, got {self.distance_function!r}")
        type(self).function(*self.probe(), **self.__dict__ | {"distance_function": None})

    def probe(self):
        return (np.ones((1, 1)),) * 3


class DiceLoss(Loss):
    """How little two masks overlap: `lossfast.functional.dice_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.DiceLoss()([[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]])
    np.float64(0.25)
    """

    function = staticmethod(F.dice_loss)
    options = {"smooth": 1.0, "reduction": "mean"}

    def probe(self):
        return np.ones((1, 1)), np.ones((1, 1))


class WassersteinLoss(Loss):
    """Wasserstein distance between histograms: `lossfast.functional.wasserstein_loss`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.WassersteinLoss(spacing=0.5)([0.5, 0.5, 0.0], [0.0, 0.5, 0.5])
    np.float64(0.5)
    """

    function = staticmethod(F.wasserstein_loss)
    options = {"spacing": 1.0, "reduction": "mean"}

    def probe(self):
        return np.ones((1, 1)), np.ones((1, 1))


class LinearCrossEntropyLoss(Loss):
    """Cross entropy of a linear layer's outputs, which are never stored as a whole: `lossfast.functional.linear_cross_entropy`.

    Examples
    --------
    >>> import lossfast as lf
    >>> lf.LinearCrossEntropyLoss()([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [0])
    np.float64(0.31326168751822286)
    """

    function = staticmethod(F.linear_cross_entropy)
    options = {"weight": None, "reduction": "mean", "ignore_index": None, "label_smoothing": 0.0}

    def probe(self):
        return np.zeros((1, 1)), np.zeros((_classes_of(self.weight), 1)), np.zeros(1, int)

"""CrossfadeClassifier by scikit-learn's checks, and the skorch callback with skorch's own nets."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

skorch = pytest.importorskip("skorch")

from scipy.optimize import minimize_scalar  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_iris, make_classification  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.metrics import log_loss  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from crossfade import CrossfadeLoss, Fade, constant, cross_entropy, expectation, gradual, linear, ramp  # noqa: E402
from crossfade._transforms import Mixture  # noqa: E402
from crossfade.errors import UserError  # noqa: E402
from crossfade.integrations.sklearn import CrossfadeClassifier, _fifth  # noqa: E402
from crossfade.integrations.skorch import CrossfadeCallback, softmax  # noqa: E402
from crossfade.objectives import power  # noqa: E402

FADE = linear()


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


# Rows that are held out are drawn: a row of weight 2 isn't two rows any more.
DRAWN = {f"check_sample_weight_equivalence_on_{kind}_data": "rows are held out" for kind in ("dense", "sparse")}


@pytest.mark.filterwarnings("ignore:calibrate")
@parametrize_with_checks(
    [CrossfadeClassifier(max_epochs=25), CrossfadeClassifier(max_epochs=25, calibrate=True)],
    expected_failed_checks=lambda estimator: DRAWN if estimator.calibrate else {},
)
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


def test_defaults_learn_real_data():
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), CrossfadeClassifier(random_state=0))
    assert cross_val_score(model, X, y, cv=3).mean() > 0.95


def test_grid_search_over_schedules_in_a_pipeline(iris):
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    pipeline = make_pipeline(StandardScaler(), CrossfadeClassifier(max_epochs=15, random_state=0))
    schedules = [cross_entropy(), constant(0.0), gradual()]
    search = GridSearchCV(pipeline, {"crossfadeclassifier__schedule": schedules}, cv=2).fit(X, names)
    assert len(search.cv_results_["params"]) == 3
    assert search.score(X, names) > 0.9
    assert set(search.predict(X)) == set(names)


def test_probabilities_sum_to_one_and_predictions_are_their_mode(iris):
    X, y = iris
    model = CrossfadeClassifier(max_epochs=5, random_state=0).fit(X.astype(np.float32), y)
    probabilities = model.predict_proba(X)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-6)
    assert (probabilities >= 0).all()
    np.testing.assert_array_equal(model.predict(X), model.classes_[probabilities.argmax(1)])


@pytest.fixture
def calibrated():
    """Overlapping classes, a network that is too sure of itself after many epochs, and how it is made."""
    X, y = make_classification(400, 8, n_informative=4, n_classes=3, flip_y=0.2, random_state=0)
    return X, np.array(["a", "b", "c"])[y], CrossfadeClassifier(max_epochs=60, calibrate=True, random_state=0)


def test_calibrate_divides_logits_by_the_best_temperature_of_rows_it_was_not_trained_on(calibrated):
    X, y, model = calibrated
    model.fit(X, y)
    logits = model.module_(torch.from_numpy(X)).detach()
    held = _fifth(np.unique(y, return_inverse=True)[1], _after_the_seed(0))
    assert 75 <= held.sum() <= 80
    trained = clone(model).set_params(calibrate=False).fit(X[~held], y[~held])
    torch.testing.assert_close(trained.module_(torch.from_numpy(X)).detach(), logits)  # the others were not trained on
    assert trained.temperature_ == 1.0

    def nll(log_t):
        return log_loss(y[held], torch.softmax(logits[held] / np.exp(log_t), 1))

    best = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    assert model.temperature_ == pytest.approx(np.exp(best.x), rel=1e-5)
    assert model.temperature_ > 1.2
    np.testing.assert_allclose(model.predict_proba(X), torch.softmax(logits / model.temperature_, 1), atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), trained.predict(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


def _after_the_seed(random_state):
    generator = np.random.RandomState(random_state)
    generator.randint(np.iinfo(np.int32).max)  # of weights and batches
    return generator


def test_calibrate_counts_rows_by_their_weight(calibrated):
    X, y, model = calibrated
    held = _fifth(np.unique(y, return_inverse=True)[1], _after_the_seed(0))
    one = model.fit(X, y).temperature_
    right = model.predict(X) == y
    alike = clone(model).fit(X, y, sample_weight=np.full(len(y), 3.0))
    assert alike.temperature_ == pytest.approx(one, rel=1e-9)
    surer = clone(model).fit(X, y, sample_weight=np.where(held & ~right, 0.1, 1.0))  # the training rows' weights stay
    assert surer.temperature_ < 0.9 * one


@pytest.mark.filterwarnings("error")
def test_calibrate_says_where_there_is_nothing_to_fit(iris):
    X, y = iris
    model = CrossfadeClassifier(max_epochs=50, calibrate=True, random_state=0)
    with pytest.warns(UserWarning, match=r"NLL has no minimum on the rows held out; temperature_ is 0.5"):
        assert model.fit(X[y < 2], y[y < 2]).temperature_ == 0.5
    few = np.concatenate([np.flatnonzero(y == label)[:4] for label in range(3)])
    with pytest.warns(UserWarning, match=r"no class has five rows to hold one out; temperature_ is 1"):
        assert model.fit(X[few], y[few]).temperature_ == 1.0


def test_pickle_and_clone_keep_the_schedule_and_the_predictions(iris):
    X, y = iris
    model = CrossfadeClassifier(gradual(), max_epochs=5, random_state=0).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_the_global_generator_is_left_alone(iris, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU's generator was seeded"))
    X, y = iris
    state = torch.random.get_rng_state()
    CrossfadeClassifier(max_epochs=2, random_state=0).fit(X, y)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("focus", [0.0, 0.25])
def test_weights_are_row_factors_of_the_loss(iris, focus):
    """One step of a linear model on one batch is along the gradient of the weighted formula."""
    X, y = iris
    row_weight = np.random.default_rng(0).integers(0, 4, len(y)).astype(float)
    model = CrossfadeClassifier(
        constant(focus), module=nn.Linear, optimizer=torch.optim.SGD, max_epochs=1, lr=1.0, batch_size=1000,
        class_weight={0: 1.0, 1: 2.0, 2: 0.5}, random_state=0,
    )  # fmt: skip
    model.fit(X, y, sample_weight=row_weight)
    start = clone(model).set_params(lr=0.0).fit(X, y).module_

    weight = torch.tensor(row_weight) * torch.tensor([1.0, 2.0, 0.5])[y]
    p = torch.softmax(start(torch.from_numpy(X)), 1)[torch.arange(len(y)), torch.from_numpy(y)]
    loss = (weight * (-p.log() + (1 - p) / (1 - 2 * focus))).sum() / weight.sum()
    (gradient,) = torch.autograd.grad(loss, start.weight)
    torch.testing.assert_close(model.module_.weight, start.weight - gradient)


def test_class_weight_is_scikit_learns(iris):
    """Weighted CE alone has one optimum: scikit-learn's logistic regression finds the same."""
    X, y = iris
    X, y = X[40:], (y[40:] == 2).astype(int)
    theirs = LogisticRegression(C=np.inf, class_weight={0: 1.0, 1: 5.0}, max_iter=500, tol=1e-10).fit(X, y)
    model = CrossfadeClassifier(
        cross_entropy(), module=nn.Linear, class_weight={0: 1.0, 1: 5.0}, max_epochs=60, optimizer=_Newton, lr=1.0,
        batch_size=1000, random_state=0,
    )  # fmt: skip
    np.testing.assert_allclose(model.fit(X, y).predict_proba(X), theirs.predict_proba(X), atol=2e-3)


class _Newton(torch.optim.LBFGS):
    def __init__(self, parameters, lr, weight_decay):
        super().__init__(
            [p for group in parameters for p in group["params"]], lr=lr, max_iter=40, line_search_fn="strong_wolfe"
        )


def test_all_rows_weighted_zero(iris):
    X, y = iris
    with pytest.raises(ValueError, match="at least one"):
        CrossfadeClassifier().fit(X, y, sample_weight=np.zeros(len(y)))
    with pytest.raises(ValueError, match="sample_weight must be above 0 for at least one row"):
        CrossfadeClassifier(class_weight={0: 0.0, 1: 1.0, 2: 1.0}).fit(X, y, sample_weight=y == 0)


@pytest.mark.parametrize("name", ["hidden_units", "max_epochs", "batch_size"])
def test_sizes_below_one_are_refused(iris, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):  # not an untrained network
        CrossfadeClassifier(**{name: 0}).fit(*iris)


class Watch(skorch.callbacks.Callback):
    def __init__(self):
        self.seen = []

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:
            self.seen.append(net.criterion_.alpha.item())


def net_for(callbacks, **options):
    torch.manual_seed(0)
    return skorch.NeuralNetClassifier(
        nn.Linear(4, 3), criterion=CrossfadeLoss, criterion__schedule=FADE, batch_size=50, verbose=0,
        callbacks=[CrossfadeCallback(), *callbacks], **({"predict_nonlinearity": softmax, "max_epochs": 4} | options),
    )  # fmt: skip


def tensors(iris):
    return iris[0].astype(np.float32), iris[1].astype(np.int64)


def test_skorch_net_has_the_schedules_weights_epoch_by_epoch(iris):
    watch = Watch()
    net = net_for([watch], train_split=None).fit(*tensors(iris))
    assert watch.seen == [FADE(epoch / 4).alpha for epoch in range(4) for _ in range(3)]
    np.testing.assert_allclose(net.predict_proba(tensors(iris)[0]).sum(1), 1.0, atol=1e-6)


def test_skorch_net_resumes_from_a_checkpoint_with_the_exact_weights(iris, tmp_path):
    X, y = tensors(iris)
    whole = Watch()
    reference = net_for([whole], train_split=None).fit(X, y)
    files = {f"f_{part}": tmp_path / f"{part}" for part in ("params", "optimizer", "criterion", "history")}

    class Kill(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                net.save_params(**files)
                raise KeyboardInterrupt

    net_for([Kill()], train_split=None).fit(X, y)
    rest = Watch()
    resumed = net_for([rest], train_split=None).initialize()
    resumed.load_params(**files)
    resumed.fit_loop(X, y, epochs=2)
    assert rest.seen == whole.seen[6:]
    assert len(resumed.history) == len(reference.history)


def test_skorch_partial_fits_share_one_schedule(iris):
    watch = Watch()
    net = skorch.NeuralNet(
        nn.Linear(4, 3), criterion=CrossfadeLoss, criterion__schedule=FADE, max_epochs=1, verbose=0, train_split=None,
        callbacks=[CrossfadeCallback(total_epochs=3), watch], batch_size=-1,
    )  # fmt: skip
    for _ in range(4):
        net.partial_fit(*tensors(iris))
    assert watch.seen == [FADE(progress).alpha for progress in (0.0, 1 / 3, 2 / 3, 1.0)]


def test_skorch_mistakes_are_named(iris):
    X, y = tensors(iris)
    with pytest.raises(UserError, match="predict_nonlinearity"):
        net_for([], predict_nonlinearity="auto").fit(X, y)
    plain = skorch.NeuralNetClassifier(
        nn.Linear(4, 3), criterion=nn.CrossEntropyLoss, callbacks=[CrossfadeCallback()], verbose=0
    )
    with pytest.raises(UserError, match="criterion must be a CrossfadeLoss, got CrossEntropyLoss"):
        plain.fit(X, y)
    with pytest.raises(ValueError, match="total_epochs must be at least 1, got 0"):
        CrossfadeCallback(total_epochs=0)


def test_any_fade_trains_a_classifier(iris):
    """The mixture's Fade is the schedule; another one follows the epochs, and the estimator's own object stays."""
    X, y = iris
    options = {"max_epochs": 5, "random_state": 0}
    mixture = Fade(Mixture, alpha=lambda progress: FADE(progress).alpha, beta=lambda progress: FADE(progress).beta)
    same = [CrossfadeClassifier(FADE, **options), CrossfadeClassifier(criterion=mixture, **options)]
    first, second = (one.fit(X, y).predict_proba(X) for one in same)
    assert (first == second).all()
    rising = CrossfadeClassifier(criterion=Fade(power, q=ramp(0.0, 0.7)), **options)
    fitted = clone(rising).fit(X, y)
    assert fitted.net_.criterion_.q.item() == pytest.approx(0.7 * 4 / 5)
    assert rising.criterion.q == fitted.criterion.q == 0
    assert abs(fitted.predict_proba(X) - first).max() > 1e-3
    for other in ({"schedule": gradual()}, {"label_smoothing": 0.1}):
        with pytest.raises(ValueError, match="criterion replaces schedule and label_smoothing"):
            clone(rising).set_params(**other).fit(X, y)


def test_skorch_takes_any_fade(iris):
    net = skorch.NeuralNet(
        nn.Linear(4, 3), criterion=Fade, criterion__g_of=power, criterion__q=ramp(0.1, 0.7, steps=2), verbose=0,
        max_epochs=4, train_split=None, callbacks=[CrossfadeCallback()],
    ).fit(*tensors(iris))  # fmt: skip
    assert net.criterion_.q == 0.7


def test_schedule_reaches_the_network(iris):
    """EL alone and CE alone must not give the same network."""
    X, y = iris
    first, second = (
        CrossfadeClassifier(schedule, max_epochs=5, random_state=0).fit(X, y).predict_proba(X)
        for schedule in (cross_entropy(), expectation())
    )
    assert abs(first - second).max() > 0.01

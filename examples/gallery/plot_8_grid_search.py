"""
A schedule by grid search, in scikit-learn
==========================================

``CrossfadeClassifier`` is an estimator like any other, so a schedule is one more parameter of a search.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import crossfade
from crossfade.integrations.sklearn import CrossfadeClassifier
from crossfade.stats import corrected_resampled_t

X, y = load_wine(return_X_y=True)
schedules = {
    "cross entropy": crossfade.cross_entropy(),
    "constant(0.0)": crossfade.constant(0.0),
    "gradual()": crossfade.gradual(),
    "linear()": crossfade.linear(),
}
model = make_pipeline(StandardScaler(), CrossfadeClassifier(max_epochs=15, lr=0.05, random_state=0))
folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)
search = GridSearchCV(model, {"crossfadeclassifier__schedule": list(schedules.values())}, cv=folds)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    search.fit(X, y)

# %%
# Each schedule on the same ten folds:
scores = np.array([search.cv_results_[f"split{k}_test_score"] for k in range(10)])
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.boxplot(100 * scores, tick_labels=list(schedules), medianprops={"color": "C1"})
axes.set(ylabel="accuracy, %", title="wine, ten folds")
plt.show()

# %%
# The best mean is no proof: the folds share their training rows. The test that takes that into account:
for name, column in list(zip(schedules, scores.T, strict=True))[1:]:
    test = corrected_resampled_t(column - scores[:, 0], n_train=142, n_test=36)
    print(f"{name:14} {100 * test.mean:+.2f} points against the cross entropy, p = {test.p:.2f}")

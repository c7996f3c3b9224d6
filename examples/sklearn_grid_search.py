"""scikit-learn: is there a better schedule for these data? A grid search over schedules, in a pipeline.

python examples/sklearn_grid_search.py
"""

import argparse

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crossfade import constant, cross_entropy, gradual, switch
from crossfade.integrations.sklearn import CrossfadeClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--smoke", action="store_true", help="five epochs, two folds")
args = parser.parse_args()

X, y = load_breast_cancer(return_X_y=True)
schedules = {"CE": cross_entropy(), "F=0": constant(0.0), "F=0,0.5": switch(), "F=0-0.5": gradual()}
search = GridSearchCV(
    make_pipeline(StandardScaler(), CrossfadeClassifier(max_epochs=5 if args.smoke else 50, random_state=0)),
    {"crossfadeclassifier__schedule": list(schedules.values())},
    cv=RepeatedStratifiedKFold(
        n_splits=2 if args.smoke else 5, n_repeats=1 if args.smoke else args.repeats, random_state=0
    ),
).fit(X, y)
results = search.cv_results_
for name, mean, spread in zip(schedules, results["mean_test_score"], results["std_test_score"], strict=True):
    print(f"{name:8} accuracy {mean:.4f} ± {spread:.4f}")
print("differences within the spread decide nothing: `crossfade compare` gives a verdict with an interval")

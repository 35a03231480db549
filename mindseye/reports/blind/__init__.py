"""The blind test: people say which of two unseen photographs belongs to a facet's picture.

`drawing` makes questions and the page, `scoring` turns files of answers into accuracies.
"""

from mindseye.reports.blind.drawing import write_blind_test
from mindseye.reports.blind.scoring import Accuracy, score

__all__ = ["Accuracy", "score", "write_blind_test"]

from . import (
    calibration as calibration,
    diagnostics as diagnostics,
    functional as functional,
    lab as lab,
    losses as losses,
    migrate as migrate,
    objectives as objectives,
    schedules as schedules,
    stats as stats,
    testing as testing,
)

# In the order of the reference.
from .losses import (
    CrossfadeLoss as CrossfadeLoss,
    Fade as Fade,
    LinearCrossfadeLoss as LinearCrossfadeLoss,
    MaxMahalanobisCenterLoss as MaxMahalanobisCenterLoss,
)
from .schedules import (
    Schedule as Schedule,
    Weights as Weights,
    constant as constant,
    cross_entropy as cross_entropy,
    expectation as expectation,
    gradual as gradual,
    linear as linear,
    ramp as ramp,
    staircase as staircase,
    switch as switch,
    weights as weights,
)
from .functional import (
    complement_entropy as complement_entropy,
    crossfade_loss as crossfade_loss,
    expectation_loss as expectation_loss,
    focal_loss as focal_loss,
    generalized_cross_entropy as generalized_cross_entropy,
    linear_crossfade_loss as linear_crossfade_loss,
    mae_loss as mae_loss,
    mpce_loss as mpce_loss,
    poly_loss as poly_loss,
    probability_loss as probability_loss,
    tamed_cross_entropy as tamed_cross_entropy,
    truncated_cross_entropy as truncated_cross_entropy,
)
from .calibration import fit_temperature as fit_temperature
from .lab.comparison import compare as compare
from .integrations.sklearn import CrossfadeClassifier as CrossfadeClassifier

__version__: str

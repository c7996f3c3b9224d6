from .curves import (
    Peak as Peak,
    criterion_curve as criterion_curve,
    gradient_curve as gradient_curve,
    numeric_peak as numeric_peak,
    peak as peak,
    row_weight as row_weight,
    Claim as Claim,
    check_claims as check_claims,
    remainder as remainder,
    remainder_bounds as remainder_bounds,
    xi as xi,
)
from .dynamics import (
    Calibration as Calibration,
    Forgetting as Forgetting,
    Transitions as Transitions,
    calibration as calibration,
    calibration_history as calibration_history,
    forgetting as forgetting,
    gradient_mass as gradient_mass,
    histograms as histograms,
    transitions as transitions,
)
from .escaping import (
    Estimate as Estimate,
    NoiseAndCurvature as NoiseAndCurvature,
    noise_and_curvature as noise_and_curvature,
    EscapingEfficiency as EscapingEfficiency,
    concavity as concavity,
    escaping_efficiency as escaping_efficiency,
)
from .recorder import (
    IndexedDataset as IndexedDataset,
    ProbabilityRecorder as ProbabilityRecorder,
    Recording as Recording,
)
from .sharpness import (
    largest_eigenvalue as largest_eigenvalue,
    loss_slice as loss_slice,
    random_direction as random_direction,
)
from .simulate import (
    DoubleWell as DoubleWell,
    EscapeCounts as EscapeCounts,
    simulate_escapes as simulate_escapes,
)

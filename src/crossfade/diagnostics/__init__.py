"""The paper's arguments as measurements that work on any model, any loss and any data.

* gradient curves (Fig. 1): :func:`gradient_curve`, :func:`criterion_curve`, :func:`row_weight`, :func:`peak`
* Taylor's remainder (eq. 11): :func:`remainder`, :func:`check_claims`
* training dynamics: :class:`ProbabilityRecorder`, :class:`Recording`, :func:`transitions`, :func:`histograms`,
  :func:`forgetting`, :func:`gradient_mass`, :func:`calibration`, :func:`calibration_history`
* escaping efficiency (eq. 15-18): :func:`noise_and_curvature`, :func:`escaping_efficiency`, :func:`concavity`
* sharpness: :func:`largest_eigenvalue`, :func:`loss_slice`, :func:`random_direction`
* simulation: :func:`simulate_escapes`, :class:`DoubleWell`

The names are listed in ``__init__.pyi`` and loaded on first use. The callbacks are in
``crossfade.diagnostics.lightning`` and ``crossfade.diagnostics.huggingface``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

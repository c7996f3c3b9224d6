"""Callbacks and helpers for training frameworks, one module for each. Import the one you need; the package loads none.

* :mod:`crossfade.integrations.lightning`: a callback
* :mod:`crossfade.integrations.transformers`: a callback and a ``compute_loss_func`` for the Hugging Face ``Trainer``
* :mod:`crossfade.integrations.trl`: a callback for TRL's ``SFTTrainer``
* :mod:`crossfade.integrations.skorch`: a callback
* :mod:`crossfade.integrations.sklearn`: ``CrossfadeClassifier``, an estimator for scikit-learn (trained by skorch)
* :mod:`crossfade.integrations.distributed`: the mean over all processes' targets, for DDP and Accelerate loops
"""

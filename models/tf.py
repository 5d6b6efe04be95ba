"""TensorFlow and Keras, set up before they are loaded: the only import of either, for training and fine-tuning alone.

Quiet, on the processor, with the same arithmetic on every processor."""

from __future__ import annotations

import os

# oneDNN rounds differently from one processor to the next, and says so at length.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(KERAS_BACKEND="tensorflow", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="-1")

import keras
import tensorflow as tf

__all__ = ["keras", "repeatable", "tf"]


def repeatable(seed: int) -> None:
    """Seeded, deterministic, one thread: what TensorFlow does from now on gives the same bytes each time."""
    try:
        # more than one thread gains a tenth here and would make the sums, so the bytes, depend on the number of cores
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # set in this process already
        pass
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)

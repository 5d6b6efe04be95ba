"""The mathematics: the SimpleRNN and its NumPy kernel, the experts, the blend, intervals, training and checkpoints."""

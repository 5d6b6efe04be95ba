"""What sends samples: a client for programs of one's own, simulated waves, recordings, standard input, Prometheus."""

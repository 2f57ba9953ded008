"""Games that are small enough for exact analysis, to study the theory of GANs. All in float64."""

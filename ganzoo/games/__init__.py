"""Games small enough to be solved: where the theory of GANs can be seen and measured. All in float64."""

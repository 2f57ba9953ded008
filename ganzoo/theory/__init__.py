"""Figures of `python -m ganzoo theory` and of the notebooks.

A figure is a function without arguments, or with the number of training `steps`, that returns a matplotlib figure. The
function beside it that computes its numbers is also called by the tests.
"""

# figure -> (file, title): a function of that name in `theory/<file>.py` draws it; its docstring is the caption
FIGURES = {
    "optimal_discriminator": ("divergences", "D* and V as the generator approaches the data"),
    "density_space": ("divergences", "the game in the space of densities: V decreases to -log 4"),
    "saturation": ("divergences", "G's loss and gradient against D's logit, for three objectives"),
    "covers_or_picks": ("divergences", "the Gaussian closest to two modes, by divergence"),
    "parallel_lines": ("divergences", "distances and divergences of two disjoint lines"),
    "bounds": ("divergences", "divergences of two Gaussians, and bounds from an outdated D"),
    "f_divergences": ("objectives", "the f-GAN family: f, D's terms, G's gradient"),
    "f_gans": ("objectives", "a generator with two parameters, trained with each divergence"),
    "objectives": ("objectives", "eight objectives on a ring of Gaussians, after a short training"),
    "one_dimension": ("line", "a GAN learns a one-dimensional density, with D and D*"),
    "frozen_discriminator": ("frozen", "a generator against a frozen discriminator"),
    "critic_loss": ("critics", "D's loss and the distance to the data, by variant"),
    "bilinear": ("dynamics", "f = xy under every update rule"),
    "radius": ("dynamics", "f = xy: distance from the equilibrium, step by step"),
    "learning_rate": ("dynamics", "f = xy: smaller steps only delay divergence"),
    "dirac": ("dynamics", "the Dirac-GAN: rotation and convergence"),
    "hinge": ("energies", "EBGAN's losses and the margin"),
    "equilibrium_energies": ("energies", "EBGAN's equilibrium energies: any value up to the margin"),
    "energy_landscape": ("energies", "EBGAN's energy over the plane during training"),
    "noise_energies": ("energies", "energies of digits and of other images"),
    "gradient_diversity": ("minibatch", "diversity of gradients in a minibatch: energy and logistic loss"),
    "pull_away": ("minibatch", "codes and fakes with and without EBGAN's pull-away term"),
    "boosting": ("boosting", "density estimation by classifying digits against samples of the model"),
    "density_support": ("support", "a density with zeros, and output noise"),
    "latent_arithmetic": ("latents", "slanted 7s minus upright 7s plus 1s, in latent space and in pixels"),
    "aliasing": ("aliasing", "why textures stick to pixels, and filters that prevent it"),
}

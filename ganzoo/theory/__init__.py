"""The theory's pictures: what `python -m ganzoo theory` draws, and what the notebooks show.

Each is a function of no arguments, or of a training's `steps`, that returns a matplotlib figure. What it draws is
measured by another function beside it, which the tests ask, too.
"""

# figure -> (file, what it shows): a function of that name in `theory/<file>.py` draws it; its docstring is the caption
FIGURES = {
    "optimal_discriminator": ("divergences", "D*, and V, as the generator comes nearer to the data"),
    "density_space": ("divergences", "the game in the space of densities: V falls to -log 4"),
    "saturation": ("divergences", "what a logit of D tells G, by objective"),
    "covers_or_picks": ("divergences", "the nearest Gaussian to two modes, by divergence"),
    "parallel_lines": ("divergences", "distances and divergences of two lines that do not meet"),
    "bounds": ("divergences", "divergences of two Gaussians, and what a D that lags behind says of them"),
    "f_divergences": ("objectives", "the f-GAN family: what f asks for, what D maximises, what G is told"),
    "f_gans": ("objectives", "a generator of two numbers in the game of each divergence"),
    "objectives": ("objectives", "seven objectives on a ring of Gaussians, after a short training"),
    "one_dimension": ("line", "a GAN learns a density on a line, with D beside D*"),
    "frozen_discriminator": ("frozen", "what G does to a discriminator that stands still"),
    "critic_loss": ("critics", "what D's loss says of the distance to the data, by variant"),
    "bilinear": ("dynamics", "f = xy under every update rule"),
    "radius": ("dynamics", "f = xy: the distance from the equilibrium, step by step"),
    "learning_rate": ("dynamics", "f = xy: smaller steps only delay"),
    "dirac": ("dynamics", "the Dirac-GAN: what turns and what converges"),
    "hinge": ("energies", "EBGAN's margin: which fakes D lifts, and which G lowers"),
    "equilibrium_energies": ("energies", "EBGAN's reals and fakes meet at any energy up to the margin"),
    "energy_landscape": ("energies", "an energy over the plane while EBGAN plays"),
    "noise_energies": ("energies", "energies of digits and of what is none"),
    "gradient_diversity": ("minibatch", "a minibatch's gradients: an energy's many targets, a logistic loss's two"),
    "pull_away": ("minibatch", "codes and fakes with and without EBGAN's pull-away term"),
    "boosting": ("boosting", "a density learnt by telling digits from fantasies"),
    "density_support": ("support", "a density that is zero off its support, and the noise that mends it"),
    "latent_arithmetic": ("latents", "leaning 7s less upright 7s plus 1s, in latents and in pixels"),
    "aliasing": ("aliasing", "why textures stick to the pixels, and the filters that free them"),
}

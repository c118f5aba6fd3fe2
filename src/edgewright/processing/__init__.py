"""One specification of pre- and post-processing, its reference in numpy, and its portable C core."""

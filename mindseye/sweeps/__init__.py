"""Many runs of one sweep: which there are, how each is doing, and what came of all of them."""

"""How far the predictions of each gene can be trusted: the model trained without some spots, and tested on them."""

"""Features: the encoder mapped over the tissue, stored unsmoothed, read as the model sees them."""

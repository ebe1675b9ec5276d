"""Every gene on demand: the factors of every superpixel, stored, and genes computed from them when they are read."""

"""Which superpixels are tissue: decided on a bounded overview, drawn exactly region by region; or a user's mask."""

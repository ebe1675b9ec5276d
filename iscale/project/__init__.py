"""The project folder: its layout, its files, and which file of a capture is which."""
